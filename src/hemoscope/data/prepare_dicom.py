"""Prepares DICOM files and their labels as a cache, in parallel: identify, group by series, decode once.

An interrupted preparation can resume: series files are written atomically, and one that contains exactly the expected
images is kept. Headers are read once: ``header_index`` knows those of files whose size and time of change are the same.
The series of a file that changed is prepared again.
"""

import csv
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePath

from hemoscope.data.cache import read_dataset, write_manifest
from hemoscope.data.dicom_series import (
    IdentifiedImage,
    IdentifyTask,
    ImageFile,
    LeftOut,
    SeriesTask,
    identify,
    prepare_series,
    remove_series,
)
from hemoscope.data.header_index import KnownHeader, read_index, stamp_of_path, write_index
from hemoscope.data.image_ids import bare_id, match_ids
from hemoscope.data.label_table import Labels
from hemoscope.data.prepare import Preparation
from hemoscope.data.processes import Run, processes
from hemoscope.dicom.read_limits import ReadLimits
from hemoscope.dicom.sources import FileSource, Source, find_sources
from hemoscope.errors import DataError
from hemoscope.files import atomic_path, inert_text, valid_text
from hemoscope.inference.card import TrainingData
from hemoscope.labels import LABELS
from hemoscope.progress import StageProgress, no_stage_progress

_BATCH = 128
_INDEX_STEP = 20_000  # new headers after which the index is written, lest an interruption lose them
_MEMBERS = 100_000_000


def prepare_dicom(  # noqa: PLR0913  (what a preparation is made of)
    images: Path,
    labels: Labels,
    output: Path,
    dataset: TrainingData,
    *,
    pseudonyms: bool = True,
    workers: int | None = None,
    dask: str | None = None,
    limits: ReadLimits = ReadLimits(),  # noqa: B008 - frozen
    show: StageProgress = no_stage_progress,
) -> Preparation:
    """Build a cache from a folder of DICOM files, one slice per file, named after their image ids.

    Files without a label row, labels without a file, and unreadable files are excluded and listed, also in
    ``left_out.csv`` of the cache. Ids are matched with file names as ``image_ids`` says. The result does not depend on
    the number of workers.

    Args:
        images: folder, read recursively.
        labels: of the requested images.
        output: the cache; may exist.
        dataset: name and terms of the dataset.
        pseudonyms: hash the patient IDs of the headers; False if they are pseudonyms already.
        workers: local processes; None is one per processor.
        dask: address of a Dask scheduler instead.
        limits: size limits of one input; ``members`` is at least 100 million here.
        show: called with the stage, the amount done and the total.

    Raises:
        DataError: ``images`` is not a folder, ``output`` holds another dataset, a file fits several ids or an id
            several files, or nothing could be read.
        ConfigError: see ``processes``.
    """
    _check_output(output, dataset)
    files, left_out = _find_files(images.resolve(), labels, limits)
    output.mkdir(parents=True, exist_ok=True)
    with processes(workers=workers, address=dask) as run:
        found = _identify_all(files, output, run, left_out, pseudonyms=pseudonyms, limits=limits, show=show)
        groups = _by_series(found, left_out)
        rows = _prepare_all(groups, output.resolve(), labels, run, left_out, limits=limits, show=show)
    left_out.sort()
    _write_left_out(output, left_out)
    if not rows:
        first = f"{left_out[0][0]}: {left_out[0][1]}" if left_out else "there are no images"
        msg = f"none of the {len(labels)} labelled images could be read; the first reason: {first}"
        raise DataError(msg)
    write_manifest(output, rows, dataset)
    return Preparation(slices=len(rows), left_out=tuple(left_out))


def _check_output(output: Path, dataset: TrainingData) -> None:
    path = output / "dataset.json"
    if path.is_file() and (name := read_dataset(path).name) != dataset.name:
        msg = f"{output.name} holds {name!r}, not {dataset.name!r}. Choose another --output"
        raise DataError(msg)


def _find_files(images: Path, labels: Labels, limits: ReadLimits) -> tuple[list[ImageFile], list[LeftOut]]:
    sources, left_out = labelled_sources(images, limits)
    matched = match_ids(labels, sources, root=images.name)
    matched.check("the labels")
    left_out += [(bare_id(PurePath(name).name), f"{name}: no row in the labels") for name in matched.names_alone]
    left_out += [(image_id, "labelled, but no file in the folder has this name") for image_id in matched.ids_alone]
    files: list[ImageFile] = []
    for name, image_id in matched.id_of.items():
        source, patient = sources[name], labels[image_id].patient_id
        if isinstance(source, FileSource):
            files.append(ImageFile(image_id=image_id, name=name, path=source.path, patient_id=patient))
        else:
            left_out.append((image_id, f"{name}: it is in an archive. Unpack that first"))
    return files, left_out


def labelled_sources(images: Path, limits: ReadLimits) -> tuple[dict[str, Source], list[LeftOut]]:
    """Return the files of a folder by name, not opened, and what is excluded.

    Raises:
        DataError: ``images`` is not a folder.
    """
    if not images.is_dir():
        msg = f"{images.name} is not a folder. Give the folder that holds the DICOM files"
        raise DataError(msg)
    sources, rejected = find_sources([images], limits=replace(limits, members=max(limits.members, _MEMBERS)))
    left_out: list[LeftOut] = [(one.source, one.message) for one in rejected]
    return {source.name: source for source in sources}, left_out


def _identify_all(
    files: Sequence[ImageFile],
    output: Path,
    run: Run,
    left_out: list[LeftOut],
    *,
    pseudonyms: bool,
    limits: ReadLimits,
    show: StageProgress,
) -> list[IdentifiedImage]:
    """Return each file with its series: from the index if it is known, else from its header.

    What was prepared of a file that changed is removed before the index says that the file is known.
    """
    known = read_index(output, pseudonyms=pseudonyms)
    stamps = {file.name: stamp_of_path(file.path) for file in files}
    changed = {name for name, stamp in stamps.items() if name in known and known[name].stamp != stamp}
    found = [one for file in files if (one := _known_image(file, known.get(file.name), stamps[file.name]))]
    index = [known[one.file.name] for one in found]
    done = {one.file.name for one in found}
    for name in changed:
        remove_series(output, known[name].series_id)
    tasks = _identify_tasks([file for file in files if file.name not in done], pseudonyms=pseudonyms, limits=limits)
    written, refused = len(found), 0
    if found:
        show("headers", len(found), len(files))
    for good, bad in run(identify, tasks):
        for one in good:
            if one.file.name in changed:
                remove_series(output, one.series_id)
            index.append(_header_of(one, stamps[one.file.name]))
        found += good
        left_out += bad
        refused += len(bad)
        show("headers", len(found) + refused, len(files))
        if len(found) >= written + _INDEX_STEP:
            write_index(output, index, pseudonyms=pseudonyms)
            written = len(found)
    if len(found) > written or not tasks:
        write_index(output, index, pseudonyms=pseudonyms)
    return found


def _identify_tasks(files: Sequence[ImageFile], *, pseudonyms: bool, limits: ReadLimits) -> list[IdentifyTask]:
    return [
        IdentifyTask(files=tuple(files[start : start + _BATCH]), pseudonyms=pseudonyms, limits=limits)
        for start in range(0, len(files), _BATCH)
    ]


def _known_image(file: ImageFile, header: KnownHeader | None, stamp: tuple[int, int]) -> IdentifiedImage | None:
    if header is None or header.stamp != stamp:
        return None
    patient = file.patient_id or header.patient_id
    if not patient:
        return None  # the labels named the patient when the header was read
    return IdentifiedImage(file=file, patient_id=patient, study_id=header.study_id, series_id=header.series_id)


def _header_of(image: IdentifiedImage, stamp: tuple[int, int]) -> KnownHeader:
    patient = "" if image.file.patient_id else image.patient_id
    return KnownHeader(image.file.name, *stamp, patient, image.study_id, image.series_id)


def _by_series(
    found: Iterable[IdentifiedImage], left_out: list[LeftOut]
) -> dict[tuple[str, str, str], tuple[ImageFile, ...]]:
    """Group files by (patient, study, series), sorted; exclude a series with two patients or studies."""
    groups: dict[str, list[IdentifiedImage]] = defaultdict(list)
    for image in found:
        groups[image.series_id].append(image)
    whole: dict[tuple[str, str, str], tuple[ImageFile, ...]] = {}
    for series_id, members in groups.items():
        owners = {(image.patient_id, image.study_id) for image in members}
        if len(owners) > 1:
            reason = f"series {series_id} holds slices of {len(owners)} patients or studies. Correct its headers"
            left_out += [(image.file.image_id, reason) for image in members]
            continue
        ((patient, study),) = owners
        files = sorted((image.file for image in members), key=lambda file: file.image_id)
        whole[patient, study, series_id] = tuple(files)
    return dict(sorted(whole.items()))


def _prepare_all(
    groups: Mapping[tuple[str, str, str], tuple[ImageFile, ...]],
    output: Path,
    labels: Labels,
    run: Run,
    left_out: list[LeftOut],
    *,
    limits: ReadLimits,
    show: StageProgress,
) -> list[dict[str, object]]:
    tasks = [SeriesTask(output=output, series_id=key[2], files=files, limits=limits) for key, files in groups.items()]
    total, seen = sum(len(task.files) for task in tasks), 0
    stacks: dict[str, tuple[tuple[str, tuple[str, ...]], ...]] = {}
    for done in run(prepare_series, tasks):
        stacks[done.series_id] = done.stacks
        left_out += done.left_out
        seen += sum(len(images) for _, images in done.stacks) + len(done.left_out)
        show("slices", seen, total)
    return [
        {
            "image_id": image_id,
            "patient_id": patient,
            "study_id": study,
            "series_id": stack_id,
            "index": index,
            "masked": False,
            **dict(zip((label.value for label in LABELS), labels[image_id].labels, strict=True)),
        }
        for patient, study, series_id in groups
        for stack_id, image_ids in stacks[series_id]
        for index, image_id in enumerate(image_ids)
    ]


def _write_left_out(output: Path, left_out: Sequence[LeftOut]) -> None:
    with (
        atomic_path(output / "left_out.csv") as draft,
        draft.open("w", newline="", encoding="utf-8") as stream,
    ):
        writer = csv.writer(stream)
        writer.writerow(["image_id", "reason"])
        # A file name that is no valid Unicode is written with its odd bytes escaped.
        writer.writerows(tuple(inert_text(valid_text(cell)) for cell in row) for row in left_out)
