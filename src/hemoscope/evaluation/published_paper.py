"""Every number that the paper publishes, as data: where it stands, how it is printed, from what it can be recomputed.

The paper: Lewicki, Kumar, Hong and Wu, "Intracranial Hemorrhage Detection in CT Scans using Deep Learning" (2020).
``key`` names the recomputed value (see ``recomputed_numbers``); the notes say where the paper contradicts itself.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum

from hemoscope.labels import LABELS, Hemorrhage

PAPER_CITATION = (
    "Lewicki T, Kumar M, Hong R, Wu W. Intracranial Hemorrhage Detection in CT Scans using Deep Learning. 2020 IEEE "
    "Sixth International Conference on Big Data Computing Service and Applications, 169-172. "
    "doi:10.1109/BigDataService49289.2020.00033"
)


class Source(StrEnum):
    """What a number is recomputed from."""

    PREDICTIONS = "predictions"  # of the paper's network for its test slices, beside the official labels
    DATASET = "dataset"  # the label file of the whole dataset
    RECIPE = "recipe"  # the experiment file paper.toml
    TIMING = "timing"  # a measurement on this machine
    TRAINING = "training"  # the images of the whole dataset, and days of training
    FROZEN = "training with a frozen base"
    NOWHERE = "nowhere"  # no public data hold it


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedNumber:
    """One number of the paper.

    Attributes:
        id: stable and unique, such as ``table-2.any.recall``.
        where: the section, table or equation, a key of ``PLACES``.
        row: what the number is; in a table, the row's head.
        column: the head of its column in a table of the paper; empty for a number in the text.
        printed: as the paper prints it, without a thousands separator; its last digit is its precision.
        unit: as the page shows it; a share in percent has ``%``.
        source: what it is recomputed from.
        key: of the recomputed value.
        note: what a reader must know beside the number.
    """

    id: str
    where: str
    row: str
    column: str = ""
    printed: str
    unit: str = ""
    source: Source
    key: str
    note: str = ""

    @property
    def value(self) -> float:
        """The number."""
        return float(self.printed)

    @property
    def step(self) -> float:
        """One unit of its last printed digit."""
        exponent = Decimal(self.printed).as_tuple().exponent
        assert isinstance(exponent, int)
        return float(Decimal(1).scaleb(exponent))


_OTHER_RUN = (
    "Tables II and III come from another training run (4 December 2019, epoch 10) than the public predictions (14 "
    "December, epoch 5), to which Tables IV and V and the AUROC belong. So a difference here is no error of either."
)
_SAME_SLICES = (
    "Each threshold is chosen and scored on the same slices, in the paper and here, so the results are optimistic."
)
_ROUNDED_THRESHOLDS = (
    "The paper's accuracy belongs to the threshold as printed, with three decimals; its precision and recall belong to "
    "the threshold before rounding. The first rows show it."
)

# Title and note of each place, in the order of the page.
PLACES: dict[str, tuple[str, str]] = {
    "III": ("Section III: the data", ""),
    "IV-A": ("Section IV-A: three windows", "Level and width in HU; each window becomes one channel in [0, 1]."),
    "IV-B": ("Section IV-B: the network", ""),
    "Equation 1": (
        "Equation 1: the loss",
        "The authors' public code trains with plain cross-entropy; the weighted loss is commented out there.",
    ),
    "IV-C": ("Section IV-C: training", ""),
    "V-A": (
        "Section V-A: the headline",
        "Accuracy and recall are the means of Table II, so of the earlier run: see there.",
    ),
    "Table II": ("Table II: above 0.5", _OTHER_RUN),
    "Table III": ("Table III: any hemorrhage, learned or as the OR of the five types", "From the run of Table II."),
    "Table IV": ("Table IV: thresholds of any hemorrhage", f"{_SAME_SLICES} {_ROUNDED_THRESHOLDS}"),
    "Table V": ("Table V: recall at precision 0.7", _SAME_SLICES),
    "V-C": ("Section V-C: AUROC", ""),
    "VI": (
        "Section VI: deployment",
        "The paper measured on an Intel i7-5600U, without a GPU. A time on another machine neither confirms nor "
        "refutes it.",
    ),
    "Abstract, VII": (
        "Abstract and conclusion: recall at precision 0.7",
        "They contradict each other: the abstract gives the mean of the five types of Table V (.862), the conclusion "
        "the mean of all six labels (.8748) with their sample standard deviation (.0531).",
    ),
}

_TABLE_II = {
    "accuracy": ".965 .998 .985 .990 .979 .978",
    "precision": ".914 .913 .900 .864 .811 .905",
    "recall": ".833 .682 .765 .846 .716 .722",
}
_TABLE_III = {
    "accuracy": ".965 .964",
    "recall": ".833 .809",
    "precision": ".914 .927",
}
_TABLE_IV = {
    "threshold": "0.0 .001 .002 .004 .008 .018 .045 .122 .345 .828",
    "precision": ".50 .55 .60 .65 .70 .75 .80 .85 .90 .95",
    "recall": ".973 .966 .959 .950 .939 .925 .906 .877 .839 .763",
    "accuracy": ".595 .89 .906 .921 .934 .945 .954 .96 .964 .961",
}
_TABLE_V = {
    "threshold": ".008 .105 .035 .088 .125 .034",
    "recall": ".939 .840 .879 .922 .794 .875",
    "accuracy": ".934 .998 .976 .984 .975 .969",
}
_ROUNDED = (
    "Accuracy was computed at the printed, rounded threshold: 0.0 instead of about .0003. A precision of .50 beside a "
    "recall of .973 needs an accuracy near .86, not .595."
)
_ROUNDED_ROWS = 4  # the thresholds above them keep enough digits
_ROUNDED_TOO = "Accuracy was computed at the printed, rounded threshold, too."


def _table_two() -> Iterator[PublishedNumber]:
    for metric, row in _TABLE_II.items():
        for label, printed in zip(LABELS, row.split(), strict=True):
            yield PublishedNumber(
                id=f"table-2.{label}.{metric}",
                where="Table II",
                row=metric.capitalize(),
                column=label.display,
                printed=printed,
                source=Source.PREDICTIONS,
                key=f"label.{label}.{metric}",
            )


def _table_three() -> Iterator[PublishedNumber]:
    ways = {"learned": "Learned as a label of its own", "explicit": "At least one of the five types"}
    for metric, row in _TABLE_III.items():
        for way, printed in zip(ways, row.split(), strict=True):
            yield PublishedNumber(
                id=f"table-3.{way}.{metric}",
                where="Table III",
                row=metric.capitalize(),
                column=ways[way],
                printed=printed,
                source=Source.PREDICTIONS,
                key=f"any.{way}.{metric}",
            )


def _table_four() -> Iterator[PublishedNumber]:
    targets = _TABLE_IV["precision"].split()
    for name, column in _TABLE_IV.items():
        for place, (target, printed) in enumerate(zip(targets, column.split(), strict=True)):
            note = "" if name != "accuracy" or place >= _ROUNDED_ROWS else _ROUNDED_TOO if place else _ROUNDED
            yield PublishedNumber(
                id=f"table-4.{target.removeprefix('.')}.{name}",
                where="Table IV",
                row=f"Precision {target}",
                column=name.capitalize(),
                printed=printed,
                source=Source.PREDICTIONS,
                key=f"tradeoff.{target}.{name}",
                note=note,
            )


def _table_five() -> Iterator[PublishedNumber]:
    for metric, row in _TABLE_V.items():
        for label, printed in zip(LABELS, row.split(), strict=True):
            yield PublishedNumber(
                id=f"table-5.{label}.{metric}",
                where="Table V",
                row=metric.capitalize(),
                column=label.display,
                printed=printed,
                source=Source.PREDICTIONS,
                key=f"at_precision.{label}.{metric}",
            )


def _recipe(name: str, where: str, row: str, printed: str, *, unit: str = "", note: str = "") -> PublishedNumber:
    """A setting, compared with the experiment file under the same name."""
    return PublishedNumber(
        id=name, where=where, row=row, printed=printed, unit=unit, source=Source.RECIPE, key=name, note=note
    )


def _number(
    name: str, where: str, row: str, printed: str, source: Source, *, unit: str = "", note: str = ""
) -> PublishedNumber:
    """A number of the text, recomputed under its own name."""
    return PublishedNumber(
        id=name, where=where, row=row, printed=printed, unit=unit, source=source, key=name, note=note
    )


def _windows() -> Iterator[PublishedNumber]:
    windows = {"brain": ("40", "80"), "subdural": ("80", "200"), "bone": ("600", "2800")}
    for name, (level, width) in windows.items():
        yield _recipe(f"window.{name}.level", "IV-A", f"{name.capitalize()} window, level", level, unit="HU")
        yield _recipe(f"window.{name}.width", "IV-A", f"{name.capitalize()} window, width", width, unit="HU")


def _weights() -> Iterator[PublishedNumber]:
    yield _recipe("loss.divisor", "Equation 1", "Number of labels C, by which the sum is divided", "6")
    for label in LABELS:
        weight = "2" if label is Hemorrhage.EPIDURAL else "1"
        yield _recipe(f"loss.weight.{label}", "Equation 1", f"Weight of {label.display.lower()}", weight)


_SPLIT_NOTE = "A random share of the slices, not of the patients: nearly every test slice has neighbors in training."
_TEXT = (
    _number("data.images", "III", "Labeled files", "752803", Source.DATASET),
    _number("data.lines", "III", "Lines of the label file for each image", "6", Source.DATASET),
    _number("data.none", "III", "Images without hemorrhage", "85.7", Source.DATASET, unit="%"),
    _number("data.one", "III", "Images with one diagnosis", "10.1", Source.DATASET, unit="%"),
    _number(
        "data.several",
        "III",
        "Images with more than one diagnosis",
        "4.2",
        Source.DATASET,
        unit="%",
        note="The authors' public notebook prints 4.26%, which rounds to 4.3; with 4.2 the shares add up to 100.0.",
    ),
    _number(
        "data.hospitals",
        "III",
        "Hospitals",
        "4",
        Source.NOWHERE,
        note="The public files do not name the hospital of an image.",
    ),
    _number("data.side", "III", "Rows and columns of an image", "512", Source.TRAINING, unit="pixels"),
    _recipe("split.test", "III", "Test set", "10", unit="% of the slices", note=_SPLIT_NOTE),
    _number("split.images", "III", "Test set, about", "75", Source.DATASET, unit="thousand slices"),
)
_NETWORK = (
    _recipe("network.size", "IV-B", "Rows and columns of the input", "224", unit="pixels"),
    _recipe("network.channels", "IV-B", "Channels of the input", "3"),
    _number("network.side", "IV-B", "Rows and columns of the last features", "7", Source.TIMING),
    _number("network.features", "IV-B", "Channels of the last features", "2048", Source.TIMING),
    _recipe("network.hidden", "IV-B", "Hidden units", "256"),
    _recipe("network.outputs", "IV-B", "Sigmoid outputs", "6"),
)
_TRAINING = (
    _recipe("training.learning_rate", "IV-C", "Learning rate of Adam", "1e-5"),
    _recipe("training.batch_size", "IV-C", "Batch size", "16", unit="slices"),
    _recipe("training.epochs", "IV-C", "Epochs", "10", note="The authors' public code trains 5 epochs."),
    _number("training.hours", "IV-C", "Training time, about", "48", Source.TRAINING, unit="h on a Tesla P100"),
    _number("frozen.accuracy", "IV-C", "Frozen base: accuracy", "90", Source.FROZEN, unit="%"),
    _number("frozen.recall", "IV-C", "Frozen base: recall", "32", Source.FROZEN, unit="%"),
)
_RESULTS = (
    _number("headline.accuracy", "V-A", "Accuracy, mean of six labels", "98.3", Source.PREDICTIONS, unit="%"),
    _number("headline.exact_match", "V-A", "All six labels right (exact match)", "93.3", Source.PREDICTIONS, unit="%"),
    _number("headline.recall", "V-A", "Recall, mean of six labels", "0.76", Source.PREDICTIONS),
    _number(
        "headline.auroc",
        "V-C",
        "AUROC",
        "0.985",
        Source.PREDICTIONS,
        note="The mean of six labels, not the AUROC of any hemorrhage.",
    ),
    _number(
        "abstract.recall", "Abstract, VII", "Abstract: recall, mean of five types", "86", Source.PREDICTIONS, unit="%"
    ),
    _number("conclusion.recall", "Abstract, VII", "Conclusion: recall, mean of six labels", ".875", Source.PREDICTIONS),
    _number("conclusion.spread", "Abstract, VII", "Conclusion: its standard deviation", "0.053", Source.PREDICTIONS),
    _number("deployment.time", "VI", "Forward pass of one slice", "366", Source.TIMING, unit="ms"),
    _number("deployment.memory", "VI", "Memory", "2.5", Source.TIMING, unit="GB"),
)

PUBLISHED: tuple[PublishedNumber, ...] = (
    *_TEXT,
    *_windows(),
    *_NETWORK,
    *_weights(),
    *_TRAINING,
    *_RESULTS,
    *_table_two(),
    *_table_three(),
    *_table_four(),
    *_table_five(),
)
