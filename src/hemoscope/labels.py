"""The six labels in their fixed order, with display names, and values keyed by label.

The order is that of the RSNA 2019 label file after sorting: ``any`` first, then the five types. Every array
with a label axis and every file with numbers per label follows it, and states it.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Generic, Self, TypeVar

T_co = TypeVar("T_co", covariant=True)


class Hemorrhage(StrEnum):
    """A kind of intracranial hemorrhage; ``ANY`` stands for at least one of the other five."""

    ANY = "any"
    EPIDURAL = "epidural"
    INTRAPARENCHYMAL = "intraparenchymal"
    INTRAVENTRICULAR = "intraventricular"
    SUBARACHNOID = "subarachnoid"
    SUBDURAL = "subdural"

    @property
    def abbreviation(self) -> str:
        """The label's abbreviation in radiology, as in "SDH"; "Any" for any hemorrhage."""
        return _ABBREVIATIONS[self.value]

    @property
    def display(self) -> str:
        """The label's name in tables and pages."""
        return "Any hemorrhage" if self is Hemorrhage.ANY else self.value.capitalize()


_ABBREVIATIONS = {
    "any": "Any",
    "epidural": "EDH",
    "intraparenchymal": "IPH",
    "intraventricular": "IVH",
    "subarachnoid": "SAH",
    "subdural": "SDH",
}

LABELS: tuple[Hemorrhage, ...] = tuple(Hemorrhage)
SUBTYPES: tuple[Hemorrhage, ...] = LABELS[1:]


@dataclass(frozen=True, slots=True)
class PerLabel(Generic[T_co]):
    """One value for each label, in label order.

    Examples:
        >>> p = PerLabel.of([0.9, 0.1, 0.8, 0.0, 0.0, 0.2])
        >>> p[Hemorrhage.INTRAPARENCHYMAL]
        0.8
        >>> p["any"]
        0.9
    """

    values: tuple[T_co, ...]

    def __post_init__(self) -> None:
        """Reject a number of values other than six."""
        if len(self.values) != len(LABELS):
            msg = f"expected {len(LABELS)} values in the order {', '.join(LABELS)}, got {len(self.values)}"
            raise ValueError(msg)

    @classmethod
    def of(cls, values: Sequence[T_co]) -> Self:
        """Build from six values in label order."""
        return cls(tuple(values))

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, T_co]) -> Self:
        """Build from six named values in any order. Raises ValueError for a missing or unknown name."""
        if set(mapping) != set(LABELS):
            msg = f"expected exactly the labels {', '.join(LABELS)}, got {', '.join(mapping)}"
            raise ValueError(msg)
        return cls(tuple(mapping[label] for label in LABELS))

    @classmethod
    def build(cls, function: Callable[[Hemorrhage], T_co]) -> Self:
        """Build by calling a function for each label."""
        return cls(tuple(function(label) for label in LABELS))

    def __getitem__(self, label: Hemorrhage | str) -> T_co:
        """Return the value of one label, given as enum or name."""
        return self.values[LABELS.index(Hemorrhage(label))]

    def items(self) -> Iterator[tuple[Hemorrhage, T_co]]:
        """Yield pairs of label and value in label order."""
        return zip(LABELS, self.values, strict=True)

    def as_dict(self) -> dict[str, T_co]:
        """Return a plain dictionary for JSON."""
        return {label.value: value for label, value in self.items()}


def check_label_order(names: Sequence[Any], *, where: str) -> None:
    """Raise ValueError unless ``names`` are the six labels in label order."""
    if [str(name) for name in names] != [label.value for label in LABELS]:
        msg = f"{where} has label order {list(names)}, expected {[label.value for label in LABELS]}"
        raise ValueError(msg)


@dataclass(frozen=True, slots=True)
class CodedTerm:
    """A coded concept: its value, the scheme that defines it (PS3.16 section 8) and the meaning to show, in ASCII."""

    value: str
    scheme: str
    meaning: str


@dataclass(frozen=True, slots=True)
class LabelCode:
    """How results in DICOM name a label: the finding, its site where the finding alone does not say it, and the source.

    ``source`` says where the code was found, for the conformance statement.
    """

    finding: CodedTerm
    source: str
    site: CodedTerm | None = None


# SNOMED CT needs a licence in some countries; a site can give its own codes instead. The code of intraparenchymal is
# the nearest one, not an equal one. Intraventricular is the general finding at a site, whose names are verified.
LABEL_CODES: PerLabel[LabelCode] = PerLabel.of(
    [
        LabelCode(CodedTerm("1386000", "SCT", "Intracranial hemorrhage"), "HPO HP:0002170; DICOM PS3.16"),
        LabelCode(CodedTerm("82999001", "SCT", "Epidural hemorrhage"), "HPO HP:0100310"),
        LabelCode(CodedTerm("274100004", "SCT", "Intraparenchymal hemorrhage"), "HPO HP:0001342; nearest code"),
        LabelCode(
            CodedTerm("50960005", "SCT", "Hemorrhage"),
            "DICOM PS3.16 CID 7151 and CID 7153",
            site=CodedTerm("35764002", "SCT", "Brain ventricle"),
        ),
        LabelCode(CodedTerm("21454007", "SCT", "Subarachnoid hemorrhage"), "HPO HP:0002138"),
        LabelCode(CodedTerm("35486000", "SCT", "Subdural hemorrhage"), "HPO HP:0100309"),
    ]
)
