"""``hemoscope predict``: findings of head CT as table, JSON or CSV, and as a folder with pictures."""

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING

from hemoscope.cli.exit_codes import ExitCode
from hemoscope.cli.limits import add_limit_option
from hemoscope.cli.progress import progress_bar
from hemoscope.errors import ConfigError
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
    from hemoscope.inference.bundle import ModelBundle
    from hemoscope.inference.predictor import Predictor
    from hemoscope.reports.report import Report, ReportedStudy


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
    _add_workers(parser)
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


def _add_workers(parser: argparse.ArgumentParser) -> None:
    shared = "read studies in N processes that share the processors (default: 1; extra: study)"
    parser.add_argument("--workers", type=_positive, metavar="N", help=shared)
    cluster = "read studies on the workers of a Dask scheduler, such as tcp://host:8786"
    parser.add_argument("--dask", metavar="ADDRESS", help=cluster)


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

    Expected refusals do not count, nor does an incomplete study in which a label is present: what it lacks cannot make
    it less urgent. In a routine or unsure study, nothing need be present.
    """
    from hemoscope.dicom.refusals import HARMLESS

    if not report.studies:
        return ExitCode.NOTHING_READ
    if any(one.code not in allowed | HARMLESS for one in report.rejected):
        return ExitCode.SOME_REFUSED
    partial = any(
        not study.findings.complete and not any(one.present for one in study.findings.findings)
        for study in report.studies
    )
    return ExitCode.INCOMPLETE if partial else ExitCode.OK


def _report(arguments: argparse.Namespace, show: StageProgress) -> "Report":
    """Process the archive study by study, so that only one volume is in memory at a time."""
    from concurrent.futures import ThreadPoolExecutor

    from hemoscope.cli.predict_tasks import are_apart
    from hemoscope.inference.bundle import load_bundle
    from hemoscope.inference.engine import engine_on, precision_on

    bundle = load_bundle(arguments.model)
    with ThreadPoolExecutor(1, thread_name_prefix="compile") as pool:
        # Compiling needs no lock of Python's: meanwhile this thread imports what reads files, and indexes them.
        settings = {"threads": arguments.threads, "precision": arguments.precision}
        compiling = None if are_apart(arguments) else pool.submit(engine_on, arguments.device, bundle, **settings)
        archive, volumes = _inputs(arguments, show)
        from hemoscope.inference.predictor import Predictor
        from hemoscope.reports.report import Report, model_identity

        predictor = None if compiling is None else Predictor(bundle, engine=compiling.result())
    if predictor is not None:
        precision = predictor.engine.precision
    else:
        precision = precision_on(arguments.device, bundle, arguments.precision)
    found = bool(archive.studies or volumes)
    model = _Model(bundle=bundle, precision=precision, predictor=predictor)
    # Studies that an earlier run finished come first; the results are in the order of the inputs all the same.
    done = dict(sorted(_studies(arguments, model, archive, volumes, show), key=itemgetter(0))) if found else {}
    return Report(
        model=model_identity(bundle, precision),
        studies=tuple(study for study, _ in done.values() if study is not None),
        rejected=archive.rejected + tuple(one for _, refused in done.values() for one in refused),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Model:
    """The model of a run; ``predictor`` is None if workers make their own."""

    bundle: "ModelBundle"
    precision: Precision
    predictor: "Predictor | None"


def _inputs(arguments: argparse.Namespace, show: StageProgress) -> "tuple[Archive, tuple[Path, ...]]":
    """Index the DICOM inputs, and return the NIfTI files beside them."""
    from hemoscope.cli.predict_tasks import are_apart
    from hemoscope.dicom.archive import open_archive
    from hemoscope.dicom.read_limits import limits_from_options
    from hemoscope.inference.inputs import split_inputs

    # Workers elsewhere look for the same files, wherever they were started.
    paths = [path.absolute() for path in arguments.paths] if arguments.dask else arguments.paths
    dicom, volumes = split_inputs(paths)
    if arguments.series and volumes:
        msg = f"--series names a DICOM series, which {volumes[0].name} has not. Leave NIfTI files out"
        raise ConfigError(msg)
    limits = limits_from_options(arguments.limit)
    # Other processes read the files again: kept here, nobody would take them.
    keep = not are_apart(arguments)
    return open_archive(dicom, limits=limits, progress=partial(show, "indexing"), keep=keep), volumes


def _studies(
    arguments: argparse.Namespace,
    model: _Model,
    archive: "Archive",
    volumes: "tuple[Path, ...]",
    show: StageProgress,
) -> "Iterator[tuple[int, tuple[ReportedStudy | None, tuple[Rejected, ...]]]]":
    """Yield each study's place among the inputs, the study if it could be read, its files written, and refusals."""
    from hemoscope.cli.predict_progress import RunProgress
    from hemoscope.cli.predict_tasks import run_tasks, study_tasks

    run = RunProgress.begin(arguments, model.bundle, model.precision, archive, volumes, show)
    yield from ((place, (record.study, record.rejected)) for place, record in run.finished.items())
    if run.finished and not run.pending:
        return
    # As it was resolved here: on another processor, "auto" could be another one.
    options = argparse.Namespace(**{**vars(arguments), "precision": model.precision})
    for done in run_tasks(study_tasks(arguments, run), options, model.bundle, model.predictor, run.show):
        if done.study is not None:
            run.pictures += done.pictures
            run.write(run.pending[done.place], done.study, done.rejected)
        run.done()
        yield done.place, (done.study, done.rejected)
    run.check_pictures()


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
