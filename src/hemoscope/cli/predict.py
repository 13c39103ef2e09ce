"""``hemoscope predict``: findings of head CT as table, JSON or CSV, and as a folder with pictures."""

import argparse
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING

from hemoscope.cli.exit_codes import ExitCode
from hemoscope.cli.limits import add_limit_option
from hemoscope.cli.progress import progress_bar
from hemoscope.errors import ConfigError, DicomReadError
from hemoscope.inference.precision import (
    DEFAULT_PRECISION,
    DEVICE_HELP,
    DEVICES,
    PRECISION_HELP,
    Precision,
    precision_of,
)
from hemoscope.progress import StageProgress

if TYPE_CHECKING:
    from hemoscope.dicom.archive import Archive
    from hemoscope.dicom.slices import Rejected
    from hemoscope.inference.predictor import Predictor, StudyOutcome, StudyReading
    from hemoscope.reports.overlays import SlicePicture
    from hemoscope.reports.report import PatientIdentity, Report, ReportedStudy


def register(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    add = parser.add_argument
    add(
        "paths",
        nargs="+",
        type=Path,
        metavar="PATH",
        help="DICOM file, folder, ZIP, TAR, gzip or DICOMDIR, or NIfTI file",
    )
    add("--model", type=Path, metavar="BUNDLE", help="folder of a model bundle (default: the bundled model)")
    add("--series", metavar="UID", help="read this series instead of the one chosen by the rule")
    add("--output", type=Path, metavar="DIR", help="write findings.json, CSV tables, reports and pictures here")
    add("--format", choices=tuple(_PRINTERS), default="table", help="format of stdout (default: table)")
    add("--schema", type=int, choices=(1, 2), default=2, help="version of the JSON's schema (default: 2)")
    add("--heatmaps", action="store_true", help="with --output: pictures of all slices, not only of key slices")
    add("--pdf", action="store_true", help="with --output: each study's report as PDF too, beside the HTML page")
    add(
        "--dicom",
        type=Path,
        metavar="DIR",
        help="write each study's results as DICOM here: structured report, pictures, key slices (extra: hospital)",
    )
    add("--threads", type=_positive, metavar="N", help="processors to use (default: all, at most eight)")
    _add_network_options(parser)
    add(
        "--allow-refused",
        type=_codes,
        default=frozenset(),
        metavar="CODE,...",
        help="codes of expected refusals that leave the exit code at 0, such as localizer,dose_report",
    )
    add("--resume", action="store_true", help="with --output: go on with an interrupted run, or with more inputs")
    add_limit_option(parser)
    add("--identify", action="store_true", help="add patient name, ID and study date to the results")
    parser.set_defaults(run=run)


def _add_network_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--device", choices=DEVICES, default="cpu", help=f"{DEVICE_HELP} (default: cpu)")
    add(
        "--precision",
        type=_precision,
        default=DEFAULT_PRECISION,
        metavar="P",
        help=f"{PRECISION_HELP} (default: {DEFAULT_PRECISION})",
    )


def run(arguments: argparse.Namespace) -> int:
    """Read every study, print and write its findings; the exit code shows whether anything was refused."""
    check_usage(arguments)
    folders = [folder for folder in (arguments.output, arguments.dicom) if folder is not None]
    if folders:
        from hemoscope.reports.output_folder import make_output_folder

        for folder in folders:
            make_output_folder(folder)
    with progress_bar() as show:
        report = _report(arguments, show)
    if arguments.output is not None:
        from hemoscope.reports.output_folder import write_report

        write_report(report, arguments.output, schema=arguments.schema)
    _PRINTERS[arguments.format](report, arguments.schema)
    if arguments.format == "table":
        _print_folders(arguments)
    return exit_code(report, arguments.allow_refused)


def _print_folders(arguments: argparse.Namespace) -> None:
    """Say where the files are."""
    from hemoscope.reports.report import printable

    if arguments.output is not None:
        sys.stdout.write(f"Reports, tables and pictures: {printable(arguments.output.name) or 'in the given folder'}\n")
    if arguments.dicom is not None:
        sys.stdout.write(f"Results in DICOM: {printable(arguments.dicom.name) or 'in the given folder'}\n")


def check_usage(arguments: argparse.Namespace) -> None:
    """Refuse options that contradict each other or have unknown values.

    Raises:
        ConfigError: names the option and the remedy.

    """
    from hemoscope.dicom.read_limits import limits_from_options
    from hemoscope.dicom.refusals import REMEDIES

    limits_from_options(arguments.limit)
    options = ((arguments.heatmaps, "--heatmaps"), (arguments.pdf, "--pdf"), (arguments.resume, "--resume"))
    for given, option in options:
        if given and arguments.output is None:
            msg = f"{option} needs a folder to write to. Add --output DIR"
            raise ConfigError(msg)
    if arguments.schema != 2 and arguments.format != "json" and arguments.output is None:
        msg = "--schema chooses the version of the JSON. Add --format json or --output DIR"
        raise ConfigError(msg)
    if arguments.dicom is not None:
        from hemoscope.reports.dicom_results.files import require_highdicom

        require_highdicom()
    known = {*REMEDIES, "no_series", "bad_nifti", "no_dicom_result"}
    if unknown := sorted(arguments.allow_refused - known):
        msg = f"--allow-refused: no such code: {', '.join(unknown)}. Codes are: {', '.join(sorted(known))}"
        raise ConfigError(msg)


def exit_code(report: "Report", allowed: frozenset[str]) -> ExitCode:
    """Return the code: nothing read ranks above something refused, and that above an incomplete study.

    Expected refusals do not count, nor does an incomplete study in which something is suspected: what it lacks cannot
    make it less urgent.
    """
    from hemoscope.inference.findings import INCOMPLETE

    if not report.studies:
        return ExitCode.NOTHING_READ
    if any(one.code not in allowed for one in report.rejected):
        return ExitCode.SOME_REFUSED
    partial = any(study.findings.urgency == INCOMPLETE for study in report.studies)
    return ExitCode.INCOMPLETE if partial else ExitCode.OK


def _report(arguments: argparse.Namespace, show: StageProgress) -> "Report":
    """Process the archive study by study, so that only one volume is in memory at a time."""
    from concurrent.futures import ThreadPoolExecutor

    from hemoscope.inference.bundle import load_bundle
    from hemoscope.inference.engine import engine_on

    bundle = load_bundle(arguments.model)
    with ThreadPoolExecutor(1, thread_name_prefix="compile") as pool:
        # Compiling needs no lock of Python's: meanwhile this thread imports what reads files, and indexes them.
        settings = {"threads": arguments.threads, "precision": arguments.precision}
        compiling = pool.submit(engine_on, arguments.device, bundle, **settings)
        archive, volumes = _inputs(arguments, show)
        from scipy import ndimage  # noqa: F401  # for the first slice

        from hemoscope.inference.predictor import Predictor
        from hemoscope.reports.report import Report, model_identity

        engine = compiling.result()
    predictor = Predictor(bundle, engine=engine)
    found = bool(archive.studies or volumes)
    # Studies that an earlier run finished come first; the results are in the order of the inputs all the same.
    done = dict(sorted(_studies(arguments, predictor, archive, volumes, show), key=itemgetter(0))) if found else {}
    return Report(
        model=model_identity(bundle, engine.precision),
        studies=tuple(study for study, _ in done.values() if study is not None),
        rejected=archive.rejected + tuple(one for _, refused in done.values() for one in refused),
    )


def _inputs(arguments: argparse.Namespace, show: StageProgress) -> "tuple[Archive, tuple[Path, ...]]":
    """Index the DICOM inputs, and return the NIfTI files beside them."""
    from hemoscope.dicom.archive import open_archive
    from hemoscope.dicom.read_limits import limits_from_options
    from hemoscope.inference.inputs import split_inputs

    dicom, volumes = split_inputs(arguments.paths)
    if arguments.series and volumes:
        msg = f"--series names a DICOM series, which {volumes[0].name} has not. Leave NIfTI files out"
        raise ConfigError(msg)
    limits = limits_from_options(arguments.limit)
    return open_archive(dicom, limits=limits, progress=partial(show, "indexing")), volumes


def _studies(
    arguments: argparse.Namespace,
    predictor: "Predictor",
    archive: "Archive",
    volumes: "tuple[Path, ...]",
    show: StageProgress,
) -> "Iterator[tuple[int, tuple[ReportedStudy | None, tuple[Rejected, ...]]]]":
    """Yield each study's place among the inputs, the study if it could be read, its files written, and refusals."""
    from hemoscope.cli.predict_progress import RunProgress
    from hemoscope.reports.report import ReportedStudy

    run = RunProgress.begin(arguments, predictor, archive, volumes, show)
    yield from ((place, (record.study, record.rejected)) for place, record in run.finished.items())
    if run.finished and not run.pending:
        return
    names = Counter(record.study.findings.study_instance_uid for record in run.finished.values())
    outcomes = _outcomes(arguments, predictor, run.archive, run.volumes, run.show)
    for (place, key), found in zip(run.pending.items(), outcomes, strict=True):
        outcome, patient = _identified(archive, found) if arguments.identify else (found, None)
        reading = outcome.reading
        if reading is None:
            run.done()
            yield place, (None, outcome.rejected)
            continue
        study = ReportedStudy(findings=reading.findings, patient=patient)
        uid = reading.findings.study_instance_uid
        names[uid] += 1
        # Two patients of one Study Instance UID are two studies: neither overwrites the files of the other.
        name = uid if names[uid] == 1 else f"{uid}-{names[uid]}"
        refused = outcome.rejected + _write_dicom_results(reading, archive, predictor, arguments, name)
        if arguments.output is not None:
            run.pictures += _draw(reading, predictor, arguments, run.show, name)
            _write_study_report(reading, study, predictor, arguments, name)
            run.write(key, study, refused)
        run.done()
        yield place, (study, refused)
    run.check_pictures()


def _outcomes(
    arguments: argparse.Namespace,
    predictor: "Predictor",
    archive: "Archive",
    volumes: "tuple[Path, ...]",
    show: StageProgress,
) -> "Iterator[StudyOutcome]":
    """Read the DICOM studies, then the NIfTI files."""
    from hemoscope.inference.inputs import nifti_studies

    maps = arguments.output is not None or arguments.dicom is not None
    if archive.studies:
        yield from predictor.studies(archive, series_instance_uid=arguments.series, maps=maps, progress=show)
    yield from nifti_studies(predictor, volumes, maps=maps, progress=show)


def _identified(archive: "Archive", outcome: "StudyOutcome") -> "tuple[StudyOutcome, PatientIdentity | None]":
    """Add who was scanned; without a reading if a file was replaced since it was decoded: whose study is it?"""
    from hemoscope.dicom.sources import rejected_by

    try:
        return outcome, None if outcome.reading is None else _patient(archive, outcome.reading)
    except DicomReadError as error:
        return replace(outcome, reading=None, rejected=(*outcome.rejected, rejected_by(error))), None


def _patient(archive: "Archive", reading: "StudyReading") -> "PatientIdentity | None":
    """Return who was scanned; a NIfTI file does not say."""
    from hemoscope.reports.identity import patient_identity

    if all(study.study_instance_uid != reading.findings.study_instance_uid for study in archive.studies):
        return None
    source = reading.findings.slices[0].source
    return patient_identity(archive.load(source), source=source, limits=archive.limits)


def _write_study_report(
    reading: "StudyReading",
    study: "ReportedStudy",
    predictor: "Predictor",
    arguments: argparse.Namespace,
    name: str,
) -> None:
    from hemoscope.reports.report import model_identity
    from hemoscope.reports.study_report_files import report_of, write_study_report

    bundle, precision = predictor.bundle, predictor.engine.precision
    report = report_of(reading, study, bundle.card, model_identity(bundle, precision))
    write_study_report(report, arguments.output, study_uid=name, pdf=arguments.pdf)


def _write_dicom_results(
    reading: "StudyReading",
    archive: "Archive",
    predictor: "Predictor",
    arguments: argparse.Namespace,
    name: str,
) -> "tuple[Rejected, ...]":
    """Write the results of a study as DICOM if they are asked for; return the reason if they cannot be made."""
    if arguments.dicom is None:
        return ()
    from hemoscope.reports.dicom_results.files import write_dicom_results
    from hemoscope.reports.report import model_identity

    refused = write_dicom_results(
        reading,
        archive.load,
        arguments.dicom,
        card=predictor.bundle.card,
        model=model_identity(predictor.bundle, predictor.engine.precision),
        name=name,
        limits=archive.limits,
    )
    return () if refused is None else (refused,)


def _draw(
    reading: "StudyReading",
    predictor: "Predictor",
    arguments: argparse.Namespace,
    show: StageProgress,
    name: str,
) -> list[Path]:
    """Draw and write the pictures of a study, and return their paths."""
    from concurrent.futures import ThreadPoolExecutor

    from hemoscope.reports.output_folder import write_picture
    from hemoscope.reports.overlays import draw_overlay
    from hemoscope.reports.picture_choice import pictures_of

    def draw(picture: "SlicePicture") -> Path:
        image = draw_overlay(picture)
        return write_picture(image, arguments.output, study_uid=name, number=picture.number, label=picture.label)

    pictures = list(pictures_of(reading, predictor.bundle.card, every_slice=arguments.heatmaps))
    paths = list[Path]()
    with ThreadPoolExecutor(predictor.engine.threads) as pool:
        for path in pool.map(draw, pictures):
            paths.append(path)
            show("drawing", len(paths), len(pictures))
    return paths


def _print_table(report: "Report", _schema: int) -> None:
    from rich.console import Console

    from hemoscope.reports.table import print_report

    print_report(report, Console(highlight=False))


def _print_json(report: "Report", schema: int) -> None:
    from hemoscope.reports.findings_json import findings_json

    sys.stdout.write(findings_json(report, version=schema))


def _print_csv(report: "Report", _schema: int) -> None:
    from hemoscope.reports.findings_csv import slices_csv

    sys.stdout.write(slices_csv(report))


_PRINTERS = {"table": _print_table, "json": _print_json, "csv": _print_csv}


def _positive(text: str) -> int:
    number = int(text) if text.isascii() and text.isdigit() else 0
    if not 1 <= number <= 1024:
        msg = f"expected a whole number of 1 to 1024, got {text!r}"
        raise argparse.ArgumentTypeError(msg)
    return number


def _precision(text: str) -> Precision:
    try:
        return precision_of(text)
    except ConfigError as error:
        msg = f"expected {', '.join(Precision)}, got {text!r}"
        raise argparse.ArgumentTypeError(msg) from error


def _codes(text: str) -> frozenset[str]:
    return frozenset(code.strip() for code in text.split(",") if code.strip())
