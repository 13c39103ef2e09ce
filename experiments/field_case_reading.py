"""What the checks of the field cases share: reading a case, and the same slices rewritten plainly or left alone."""

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian

from hemoscope.dicom.archive import Archive, open_archive
from hemoscope.dicom.read import read_slices
from hemoscope.dicom.series_choice import choose_series
from hemoscope.dicom.slices import SliceHeader
from hemoscope.inference.predictor import Predictor
from hemoscope.inference.study_reading import Prediction, StudyReading

SAME = 1e-6


@dataclass(frozen=True)
class Seen:
    """What was seen of a case, and each claim about it with whether it holds."""

    text: str
    claims: dict[str, bool]

    @property
    def failed(self) -> list[str]:
        """The claims that do not hold."""
        return [claim for claim, holds in self.claims.items() if not holds]


@dataclass(frozen=True)
class Read:
    """What was found and read in one case."""

    archive: Archive
    prediction: Prediction

    @property
    def study(self) -> StudyReading:
        """The only study."""
        (study,) = self.prediction.studies
        return study

    @property
    def headers(self) -> tuple[SliceHeader, ...]:
        """Headers of the series that is read of the only study."""
        (study,) = self.archive.studies
        return choose_series(study).series.headers

    @property
    def any(self) -> float:
        """Probability of hemorrhage in the only study."""
        return float(self.study.findings.probabilities["any"])

    @property
    def codes(self) -> set[str]:
        """Codes of the notes on the only study."""
        return {note.code for note in self.study.findings.quality}

    @property
    def refused(self) -> list[str]:
        """Codes of what was refused."""
        return [one.code for one in self.prediction.rejected]

    @property
    def ordered(self) -> bool:
        """Whether positions (else Slice Location) of the slices ascend."""
        places = [one.slice_location_mm if one.position_mm is None else one.position_mm[2] for one in self.headers]
        return all(a is not None and b is not None and a < b for a, b in pairwise(places))

    def whole(self, slices: int) -> dict[str, bool]:
        """Return the claims that so many slices are read, each once, in order, and none is left out."""
        findings = self.study.findings
        return {
            f"{slices} slices": len(findings.slices)
            == len({(one.source, one.ref.frame) for one in findings.slices})
            == slices,
            "in order": self.ordered,
            "nothing refused or unread": not self.refused and not findings.unread,
        }

    @property
    def text(self) -> str:
        """The figures of the only study."""
        findings = self.study.findings
        notes = ", ".join(sorted(self.codes)) or "none"
        slices = f"{len(findings.slices)} slice{'s' if len(findings.slices) > 1 else ''}"
        return f"{slices}, any {self.any:.3f}, {findings.urgency}; notes: {notes}"


@dataclass(frozen=True)
class Bench:
    """The model, and the files of the phantom that several cases are variants of."""

    model: Predictor
    plain: Path

    def read(self, paths: Path | Sequence[Path]) -> Read:
        """Open and read."""
        archive = open_archive(paths if isinstance(paths, Path) else list(paths))
        return Read(archive, self.model.predict(archive))

    def alone(self, folder: Path, keep: Callable[[Dataset], bool]) -> Read:
        """Read only the files that are kept."""
        return self.read([path for path in files(folder) if keep(pydicom.dcmread(path, stop_before_pixels=True))])

    def rewritten(self, folder: Path, change: Callable[[Dataset, int], object]) -> Read:
        """Read the files with a change of each, uncompressed; the number counts them from 0."""
        with tempfile.TemporaryDirectory() as temporary:
            for number, path in enumerate(files(folder)):
                dataset = pydicom.dcmread(path)
                if dataset.file_meta.TransferSyntaxUID.is_compressed:
                    dataset.decompress(generate_instance_uid=False)
                dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
                change(dataset, number)
                dataset.save_as(Path(temporary, path.name))
            return self.read(Path(temporary))


def files(folder: Path) -> list[Path]:
    """All files under a folder, in order of their names."""
    return sorted(path for path in folder.rglob("*") if path.is_file())


def pixels(path: Path) -> NDArray[np.float32]:
    """Return the HU that Hemoscope reads, whatever kind of image it is: (frames, rows, columns)."""
    return np.stack([one.hounsfield for one in read_slices(path.read_bytes(), source=path.name)])


def same(one: Read, other: Read) -> bool:
    """Whether two readings of one study have the same slices and probabilities."""
    found, expected = one.study.probabilities, other.study.probabilities
    pairs = ("slice_probabilities", "study_probabilities")
    return len(one.study.volume) == len(other.study.volume) and all(
        np.allclose(getattr(found, name), getattr(expected, name), rtol=0, atol=SAME) for name in pairs
    )
