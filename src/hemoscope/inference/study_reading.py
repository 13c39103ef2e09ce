"""What a predictor returns: one study, read; what became of a study; and every study of an archive."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hemoscope.dicom.slices import Rejected
from hemoscope.inference.calibration import AnyCalibration
from hemoscope.inference.findings import StudyFindings
from hemoscope.inference.heat_maps import HeatMap, heat_on_slice, local_probabilities
from hemoscope.inference.preprocess import Box, Preprocessing, box_on_slice
from hemoscope.inference.probabilities import StudyProbabilities
from hemoscope.labels import LABELS, Hemorrhage, PerLabel
from hemoscope.volume import AxisChange, HounsfieldVolume

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyReading:
    """One study, read: what is reported, and what is needed to show why.

    Attributes:
        findings: the result.
        probabilities: the scores behind it, slices in the order of the volume.
        volume: the series in Hounsfield units.
        maps: class-activation logits, float32 (slices, 6, height, width), each over the ``box`` of its slice as stored;
            None unless asked for.
        preprocessing: of the model that read it.
        calibration: of the model's slice logits, which turns ``maps`` into local probabilities.
        established: which labels its validation supports; a map of another one shows no more than that of ``any``.
    """

    findings: StudyFindings
    probabilities: StudyProbabilities
    volume: HounsfieldVolume
    maps: NDArray[np.float32] | None
    preprocessing: Preprocessing
    calibration: PerLabel[AnyCalibration]
    established: PerLabel[bool]

    @property
    def affine(self) -> NDArray[np.float64]:
        """The affine of NIfTI, (4, 4): indices (column, row, slice) of ``volume.hounsfield.T`` to millimetres in RAS.

        Where the findings carry the quality note ``geometry_assumed``, so is this.

        Raises:
            GeometryError: positions are unknown, or no single affine places the slices.
        """
        return self.volume.affine

    @property
    def canonical(self) -> "StudyReading":
        """The same reading with volume and maps in the radiological convention, to be shown."""
        change = AxisChange.of(self.volume.orientation)
        maps = None if self.maps is None else change.apply(self.maps)
        return replace(self, volume=self.volume.canonical, maps=maps)

    def box(self, index: int) -> Box:
        """Return the part of the slice, as stored, that the model saw, over which its maps are laid."""
        return box_on_slice(self.volume, index, self.preprocessing)

    def local_heat(self, label: Hemorrhage | str, index: int) -> HeatMap:
        """Return the heat map of a label on a slice at the model's own resolution, with its box on the slice.

        Raises:
            ValueError: there is no such label, or the study was read without its maps.
            IndexError: there is no such slice.
        """
        if self.maps is None:
            msg = "the study was read without heat maps: read it with maps=True"
            raise ValueError(msg)
        if not 0 <= index < len(self.volume):
            msg = f"slice {index} of a volume of {len(self.volume)}"
            raise IndexError(msg)
        places = local_probabilities(self.maps[index], self.calibration, self.established)
        return HeatMap(values=places[LABELS.index(Hemorrhage(label))], box=self.box(index))

    def heat_map(self, label: Hemorrhage | str, index: int) -> NDArray[np.float32]:
        """Return where the model saw a label in a slice: float32 (rows, columns) of the slice's own size, in [0, 1].

        Values are local probabilities, calibrated and consistent as slices are: at each place, ``any`` is the highest.
        They are 0 outside the square that the model saw.

        Raises:
            ValueError: there is no such label, or the study was read without its maps.
            IndexError: there is no such slice.
        """
        return heat_on_slice(self.local_heat(label, index), self.volume.hounsfield.shape[1:])

    def to_pandas(self) -> "pd.DataFrame":
        """Return one row a slice, from feet to head: index, UID, frame, position and the six probabilities.

        Raises:
            MissingExtraError: pandas is not installed.
        """
        from hemoscope.inference.data_frames import slice_rows

        return slice_rows(self.findings)

    def to_nifti(self, path: str | Path, *, heat_map: Hemorrhage | str | None = None) -> None:
        """Write the volume in HU, or one label's heat map over it, as NIfTI (``.nii`` or ``.nii.gz``).

        Args:
            path: an existing file is replaced.
            heat_map: write this label's local probabilities, float32 in [0, 1], instead of HU.

        Raises:
            GeometryError: the volume has no affine.
            ValueError: ``heat_map`` is given, but the study was read without its maps.
            NiftiError: the file cannot be written.
            MissingExtraError: nibabel is not installed.
        """
        from hemoscope.nifti import write_nifti

        values: NDArray[np.int16] | NDArray[np.float32] = self.volume.hounsfield
        if heat_map is not None:
            values = np.stack([self.heat_map(heat_map, index) for index in range(len(self.volume))])
        assumed = any(note.code == "geometry_assumed" for note in self.findings.quality)
        write_nifti(path, values, self.affine, note=f"Hemoscope{', geometry assumed' if assumed else ''}")


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyOutcome:
    """What became of one study: a reading, or None, and the inputs that were refused on the way."""

    study_instance_uid: str
    reading: StudyReading | None
    rejected: tuple[Rejected, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """Every study of an archive that could be read, and everything that was refused."""

    studies: tuple[StudyReading, ...]
    rejected: tuple[Rejected, ...]

    def to_pandas(self) -> "pd.DataFrame":
        """Return one row a study: UIDs, triage, the six study probabilities, ``LABEL_present``, and the state.

        Raises:
            MissingExtraError: pandas is not installed.
        """
        from hemoscope.inference.data_frames import study_rows

        return study_rows(reading.findings for reading in self.studies)
