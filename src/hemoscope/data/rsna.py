"""RSNA 2019 (Flanders et al. 2020): its terms, and its labels.

Kaggle's ``stage_2_train.csv`` has the columns ``ID`` (``ID_xxx_label``) and ``Label``, six lines an image.
"""

from pathlib import Path

from hemoscope.data.label_table import LabelledImage, read_table_labels
from hemoscope.inference.card import TrainingData

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
    """Return the six labels of each image by image id; errors as for ``read_table_labels``."""
    return read_table_labels(path)
