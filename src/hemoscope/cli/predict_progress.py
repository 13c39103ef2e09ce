"""The course of one run of ``hemoscope predict``: what is finished, what is pending, and what is written meanwhile."""

import argparse
import sys
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from hemoscope.errors import DataError
from hemoscope.progress import StageProgress, no_stage_progress

if TYPE_CHECKING:
    from hemoscope.dicom.archive import Archive, Study
    from hemoscope.dicom.slices import Rejected
    from hemoscope.inference.bundle import ModelBundle
    from hemoscope.inference.precision import Precision
    from hemoscope.reports.report import ReportedStudy
    from hemoscope.reports.study_records import StudyRecord

STAGE = "studies"


@dataclass(slots=True, kw_only=True)
class RunProgress:
    """Counts studies, and writes each one's rows and record when it is done.

    Attributes:
        finished: by place in the run, studies of an earlier run with the same inputs, model and options.
        pending: by place in the run, the key of each study to read, None for one that cannot be recorded.
        archive: the archive with the DICOM studies that are pending.
        volumes: the NIfTI files that are pending.
        show: progress within a study; shows nothing if there are several, since only whole studies tell the time left.
        show_studies: progress of studies.
        output: the folder of the results, None for none.
        identify: whether results may hold a patient's identity.
        count: studies done.
        pictures: that this run wrote.
    """

    finished: dict[int, "StudyRecord"]
    pending: dict[int, str | None]
    archive: "Archive"
    volumes: tuple[Path, ...]
    show: StageProgress
    show_studies: StageProgress
    output: Path | None
    identify: bool
    count: int = 0
    pictures: list[Path] = field(default_factory=list)

    @classmethod
    def begin(
        cls,
        arguments: argparse.Namespace,
        bundle: "ModelBundle",
        precision: "Precision",
        archive: "Archive",
        volumes: Sequence[Path],
        show: StageProgress,
    ) -> "RunProgress":
        """Find what is finished, begin the tables, and show the count.

        Raises:
            ConfigError: the output folder cannot be written to.
        """
        folder = arguments.output
        studies = _with_series(archive, arguments.series)
        keys: list[str | None] = [None] * (len(studies) + len(volumes))
        finished: dict[int, StudyRecord] = {}
        if folder is not None:
            from hemoscope.reports.output_folder import begin_tables
            from hemoscope.reports.study_records import read_record, study_key, volume_key

            settings = _settings(arguments, bundle, precision)
            keys = [study_key(archive, study, settings) for study in studies]
            keys += [volume_key(path, settings) for path in volumes]
            found = {place: read_record(folder, key) for place, key in enumerate(keys) if arguments.resume}
            finished = {place: record for place, record in found.items() if record is not None}
            begin_tables(folder, [record.study for record in finished.values()], identify=arguments.identify)
        several = len(keys) > 1
        run = cls(
            finished=finished,
            pending={place: key for place, key in enumerate(keys) if place not in finished},
            archive=_without(archive, studies, finished),
            volumes=tuple(path for place, path in enumerate(volumes, len(studies)) if place not in finished),
            show=no_stage_progress if several else show,
            show_studies=show if several else no_stage_progress,
            output=folder,
            identify=arguments.identify,
        )
        run.done(len(finished))
        if finished:
            count = f"{len(finished)} of {len(keys)} studies"
            sys.stderr.write(f"{count} are finished with the same inputs and model, and are not read again\n")
        return run

    def write(self, key: str | None, study: "ReportedStudy", rejected: "tuple[Rejected, ...]") -> None:
        """Write the rows and the record of a study whose other files are written.

        Raises:
            ConfigError: the output folder cannot be written to.
        """
        if self.output is None:
            return
        from hemoscope.reports.output_folder import append_study
        from hemoscope.reports.study_records import StudyRecord, write_record

        append_study(self.output, study, identify=self.identify)
        if key is not None:
            write_record(self.output, key, StudyRecord(study=study, rejected=rejected))

    def check_pictures(self) -> None:
        """Check that the pictures are still there. Raises DataError: another program removed some."""
        gone = sum(not path.exists() for path in self.pictures)
        if gone and self.output is not None:
            of = f"{gone} of {len(self.pictures)} pictures in {self.output.name}"
            msg = f"{of} were removed while others were drawn. Run it again, without --resume"
            raise DataError(msg)

    def done(self, studies: int = 1) -> None:
        """Count studies, read or refused."""
        self.count += studies
        self.show_studies(STAGE, self.count, len(self.finished) + len(self.pending))


def _settings(arguments: argparse.Namespace, bundle: "ModelBundle", precision: "Precision") -> str:
    """What a result depends on besides its inputs, as text."""
    options = (arguments.series, arguments.heatmaps, arguments.pdf, arguments.identify, sorted(arguments.limit))
    model = (bundle.sha256, arguments.device, precision.value)
    return repr((*model, options, arguments.dicom and str(arguments.dicom)))


def _without(archive: "Archive", studies: "Sequence[Study]", finished: Collection[int]) -> "Archive":
    """Return the archive without the finished ones of these studies."""
    if not finished:
        return archive
    return replace(archive, studies=tuple(one for place, one in enumerate(studies) if place not in finished))


def _with_series(archive: "Archive", series_instance_uid: str | None) -> "tuple[Study, ...]":
    """Return the studies that will be read: all, or those with the series that was asked for."""
    if series_instance_uid is None:
        return archive.studies
    return tuple(
        study
        for study in archive.studies
        if any(series.series_instance_uid == series_instance_uid for series in study.series)
    )
