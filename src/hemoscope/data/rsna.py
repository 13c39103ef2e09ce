"""RSNA 2019 (Flanders et al. 2020): reads Kaggle's label file, which has six lines per image.

``stage_2_train.csv`` has the columns ``ID`` (``ID_xxx_label``) and ``Label``. Some images occur twice: identical
lines are dropped by their content, never by their position in the file, and contradictory lines are an error.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from hemoscope.data.label_table import LabelledImage, read_text_table
from hemoscope.errors import DataError
from hemoscope.inference.card import TrainingData
from hemoscope.labels import LABELS

if TYPE_CHECKING:
    import pandas as pd

DATASET = TrainingData(
    name="RSNA 2019 Brain CT Hemorrhage",
    version="Kaggle stage 2 training set",
    doi="10.1148/ryai.2020190211",
    license="RSNA 2019 challenge terms: non-commercial research and education",
    attribution=(
        "Flanders AE, Prevedello LM, Shih G, et al. Construction of a Machine Learning Dataset through Collaboration: "
        "The RSNA 2019 Brain CT Hemorrhage Challenge. Radiology: Artificial Intelligence 2020;2(3):e190211"
    ),
    changes="Decoded to Hounsfield units and put into series in anatomical order",
)


def read_rsna_labels(path: Path) -> dict[str, LabelledImage]:
    """Return the six labels of each image by image id, sorted by id.

    Raises:
        DataError: the file is not a table with ``ID`` and ``Label``; a line has no label or a value other than 0 and
            1; two lines contradict each other; an image lacks a label.
    """
    table = read_text_table(path, ("ID", "Label"))
    named = table["ID"].str.rpartition("_")
    table = table.assign(image_id=named[0], label=named[2])
    _check_lines(path, table)
    once = table.drop_duplicates("ID")
    _check_conflicts(path, table, once)
    wide = once.pivot_table(index="image_id", columns="label", values="Label", aggfunc="first")
    wide = wide.reindex(columns=[label.value for label in LABELS]).sort_index()
    gaps = wide.isna()
    if gaps.to_numpy().any():
        image_id = gaps.any(axis=1).idxmax()
        missing = ", ".join(label for label in LABELS if gaps.loc[image_id, label])
        msg = f"{path.name}: {image_id} has no line for {missing}. Every image needs six lines"
        raise DataError(msg)
    six = (wide == "1").astype(int)
    return {
        str(image_id): LabelledImage(labels=values)
        for image_id, values in zip(six.index, six.itertuples(index=False, name=None), strict=True)
    }


def _check_lines(path: Path, table: "pd.DataFrame") -> None:
    known = table["label"].isin([label.value for label in LABELS]) & (table["image_id"] != "")
    wrong = ~(known & table["Label"].isin(["0", "1"]))
    if wrong.any():
        line = int(wrong.idxmax())
        what = f"{table['ID'][line]!r:.80} with {table['Label'][line]!r:.20}"
        msg = f"{path.name}: line {line + 2} is {what}, expected an ID that ends in a label, and 0 or 1"
        raise DataError(msg)


def _check_conflicts(path: Path, table: "pd.DataFrame", once: "pd.DataFrame") -> None:
    first = table["ID"].map(once.set_index("ID")["Label"])
    differs = table["Label"] != first
    if differs.any():
        line = int(differs.idxmax())
        name = table["ID"][line]
        before = int(once.index[once["ID"] == name][0])
        msg = (
            f"{path.name}: {name} is {first[line]} in line {before + 2} and {table['Label'][line]} in line {line + 2}. "
            "Remove the wrong one"
        )
        raise DataError(msg)
