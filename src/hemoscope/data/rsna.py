"""RSNA 2019 (Flanders et al. 2020): reads Kaggle's label file, which has six lines per image.

``stage_2_train.csv`` has the columns ``ID`` (``ID_xxx_label``) and ``Label``. Some images occur twice: identical
lines are dropped by their content, never by their position in the file, and contradictory lines are an error.
"""

from collections.abc import Iterator
from pathlib import Path

from hemoscope.data.label_table import LabelledImage, read_text_chunks
from hemoscope.errors import DataError
from hemoscope.inference.card import TrainingData
from hemoscope.labels import LABELS

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

    The 4.5 million lines of Kaggle's file are read in parts, and images with equal labels share one object, to save
    memory.

    Raises:
        DataError: the file is not a table with ``ID`` and ``Label``; a line has no label or a value other than 0 and
            1; two lines contradict each other; an image lacks a label.
    """
    found: dict[str, int] = {}  # by image id: bits of the known labels, and above them of the positive ones
    for line, name, value in _lines(path):
        image_id, _, label = name.rpartition("_")
        if not image_id or label not in _BIT or value not in _VALUES:
            what = f"{name!r:.80} with {value!r:.20}"
            msg = f"{path.name}: line {line} is {what}, expected an ID that ends in a label, and 0 or 1"
            raise DataError(msg)
        known, positive = _BIT[label], _BIT[label] << len(LABELS)
        before = found.get(image_id, 0)
        if before & known and bool(before & positive) != (value == "1"):
            raise _conflict(path, name, value, line)
        found[image_id] = before | known | (positive if value == "1" else 0)
    images = {bits: _labelled(bits) for bits in set(found.values()) if bits & _ALL == _ALL}
    try:
        return {image_id: images[found[image_id]] for image_id in sorted(found)}
    except KeyError:
        image_id, bits = next((name, found[name]) for name in sorted(found) if found[name] not in images)
        missing = ", ".join(label for label in LABELS if not bits & _BIT[label])
        msg = f"{path.name}: {image_id} has no line for {missing}. Every image needs six lines"
        raise DataError(msg) from None


_VALUES = ("0", "1")
_BIT = {label.value: 1 << place for place, label in enumerate(LABELS)}
_ALL = (1 << len(LABELS)) - 1


def _lines(path: Path) -> Iterator[tuple[int, str, str]]:
    """Yield number, ID and value of every line after the header."""
    for chunk in read_text_chunks(path, ("ID", "Label")):
        yield from zip(range(chunk.index[0] + 2, chunk.index[-1] + 3), chunk["ID"], chunk["Label"], strict=True)


def _labelled(bits: int) -> LabelledImage:
    positive = bits >> len(LABELS)
    return LabelledImage(labels=tuple(int(bool(positive & bit)) for bit in _BIT.values()))


def _conflict(path: Path, name: str, value: str, line: int) -> DataError:
    first, other = next((number, found) for number, known, found in _lines(path) if known == name)
    return DataError(f"{path.name}: {name} is {other} in line {first} and {value} in line {line}. Remove the wrong one")
