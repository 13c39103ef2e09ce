"""Paths in, predictions out: loads a model, tells NIfTI files from DICOM, and reads both with one predictor."""

from collections.abc import Iterator, Sequence
from functools import partial
from os import PathLike
from pathlib import Path

from hemoscope.dicom.archive import open_archive
from hemoscope.dicom.read_limits import ReadLimits
from hemoscope.dicom.series_from_volume import series_of_volume
from hemoscope.dicom.slices import Rejected
from hemoscope.dicom.sources import as_paths
from hemoscope.errors import NiftiError, SeriesError
from hemoscope.inference.bundle import load_bundle
from hemoscope.inference.precision import DEFAULT_PRECISION, precision_of
from hemoscope.inference.predictor import Predictor
from hemoscope.inference.study_reading import Prediction, StudyOutcome
from hemoscope.nifti import is_nifti, read_nifti
from hemoscope.progress import StageProgress

INDEXING = "indexing"


def load_model(
    path: str | PathLike[str] | None = None, *, threads: int | None = None, precision: str = DEFAULT_PRECISION
) -> Predictor:
    """Load a model bundle, verify it and compile it for this processor.

    Args:
        path: the bundle's folder; None is the model that ships with Hemoscope.
        threads: for decoding and scoring; None takes the processors this process may use, eight at most.
        precision: of the network: ``auto`` (the fastest that the card accepts and this processor has), ``float32``,
            ``bf16`` or ``int8``.

    Returns:
        A predictor. Keep it, and use it from one thread at a time.

    Raises:
        BundleError: the folder, the card or a file is not as the format defines it.
        ConfigError: this processor lacks the precision, or the bundle has no graph for it.

    Examples:
        >>> model = load_model()
        >>> model.bundle.card.name
        'hemoscope-default'
    """
    bundle = load_bundle(None if path is None else Path(path))
    return Predictor(bundle, threads=threads, precision=precision_of(precision))


def predict(
    paths: str | PathLike[str] | Sequence[str | PathLike[str]],
    *,
    model: Predictor | None = None,
    series_instance_uid: str | None = None,
    maps: bool = False,
    limits: ReadLimits = ReadLimits(),  # noqa: B008 - frozen
    progress: StageProgress | None = None,
) -> Prediction:
    """Look for hemorrhage in every study under the given paths, and keep all of them in memory.

    For more studies than fit, go through ``Predictor.studies``, which holds one at a time.

    Args:
        paths: one or several of: DICOM file, folder, archive or DICOMDIR of DICOM files, NIfTI file.
        model: what ``load_model`` returned; None loads the model that ships with Hemoscope.
        series_instance_uid: read this DICOM series, and only the study that holds it, instead of choosing by rule.
        maps: keep the heat maps of every slice.
        limits: of DICOM inputs; one above a limit is refused as ``too_large``. NIfTI files have limits of their own.
        progress: called with the stage, the items done and their number.

    Returns:
        The studies that could be read, and every input that was refused, each with a code and a remedy. A refused input
        is never an error: look at ``rejected``.

    Raises:
        SeriesError: no study holds the series that was asked for, or NIfTI files stand beside it.
        MissingExtraError: a NIfTI file is given and nibabel is not installed.

    Examples:
        >>> prediction = predict("examples/sample")
        >>> [study.findings.triage.value for study in prediction.studies], prediction.rejected
        (['immediate'], ())
        >>> from hemoscope import ReadLimits
        >>> small = predict("examples/sample", limits=ReadLimits(file_bytes=1000))
        >>> len(small.studies), {refused.code for refused in small.rejected}
        (0, {'too_large'})
    """
    dicom, volumes = split_inputs(as_paths(paths))
    if series_instance_uid is not None and volumes:
        msg = f"{volumes[0].name} has no DICOM series to choose. Leave NIfTI files out, or the series"
        raise SeriesError(msg)
    model = load_model() if model is None else model
    archive = open_archive(dicom, limits=limits, progress=None if progress is None else partial(progress, INDEXING))
    read = model.predict(archive, series_instance_uid=series_instance_uid, maps=maps, progress=progress)
    outcomes = tuple(nifti_studies(model, volumes, maps=maps, progress=progress))
    return Prediction(
        studies=read.studies + tuple(outcome.reading for outcome in outcomes if outcome.reading is not None),
        rejected=read.rejected + tuple(refusal for outcome in outcomes for refusal in outcome.rejected),
    )


def split_inputs(paths: Sequence[Path]) -> tuple[tuple[Path, ...], tuple[Path, ...]]:
    """Return what holds DICOM, and the NIfTI files: those that are named so. Folders are searched for DICOM alone."""
    volumes = tuple(path for path in paths if is_nifti(path) and not path.is_dir())
    return tuple(path for path in paths if path not in volumes), volumes


def nifti_studies(
    model: Predictor, paths: Sequence[Path], *, maps: bool = False, progress: StageProgress | None = None
) -> Iterator[StudyOutcome]:
    """Read NIfTI files one after the other, each as a study; one that is refused never stops the others.

    Raises:
        MissingExtraError: nibabel is not installed.
    """
    for path in paths:
        # No variable here holds the outcome: the volume can go before the next one is read.
        yield _nifti_study(model, path, maps=maps, progress=progress)


def _nifti_study(model: Predictor, path: Path, *, maps: bool, progress: StageProgress | None) -> StudyOutcome:
    try:
        decoded = series_of_volume(read_nifti(path), source=path.name)
    except NiftiError as error:
        message = str(error).removeprefix(f"{path.name}: ")
        refusal = Rejected(source=path.name, code="bad_nifti", message=message)
        return StudyOutcome(study_instance_uid="", reading=None, rejected=(refusal,))
    reading = model.read(decoded, maps=maps, progress=progress)
    return StudyOutcome(study_instance_uid=reading.findings.study_instance_uid, reading=reading, rejected=())
