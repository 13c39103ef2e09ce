"""``hemoscope federated simulate`` and ``compare``: a federation on one machine, and what it is measured against."""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hemoscope.cli.exit_codes import ExitCode
from hemoscope.cli.federated_rounds import round_line
from hemoscope.cli.progress import progress_bar
from hemoscope.errors import ConfigError
from hemoscope.processors import available_processors

if TYPE_CHECKING:
    from hemoscope.federated.simulation.simulation import Poison

_WAYS = ("patient", "by-type", "dirichlet")
_POISONS = ("flip", "scale")


def register_simulate(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("federation", type=Path, metavar="FEDERATION", help="a TOML file, or a shipped one's name")
    parser.add_argument("--data", type=Path, required=True, metavar="CACHE", help="what hemoscope prepare wrote")
    parser.add_argument("--output", type=Path, required=True, metavar="RUN", help="folder of the run")
    parser.add_argument("--sites", type=int, default=4, metavar="N", help="how many sites (default: 4)")
    parser.add_argument(
        "--partition",
        choices=_WAYS,
        default="patient",
        help="how patients are partitioned among sites (default: patient)",
    )
    parser.add_argument(
        "--shares",
        type=_numbers,
        default=(),
        metavar="4,3,2,1",
        help="relative sizes of the sites, for --partition patient",
    )
    parser.add_argument("--seed", type=int, default=257, metavar="N", help="of the partition (default: 257)")
    parser.add_argument(
        "--only",
        nargs="+",
        action="extend",
        default=[],
        metavar="PART",
        help="train these parts: fold-0 ... final, or split",
    )
    parser.add_argument("--resume", action="store_true", help="go on where an interrupted run stopped")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change a key, as rounds=2")
    parser.add_argument("--actors", type=int, metavar="N", help="sites that train at once (default: one a processor)")
    parser.add_argument(
        "--poison",
        type=_poison,
        action="append",
        default=[],
        metavar="site-2=flip|scale",
        help="let a site work against the others: its labels turned round, or its updates made 100 times longer",
    )
    parser.add_argument("--verbose", action="store_true", help="show what Flower and Ray say")
    parser.set_defaults(run=run_simulate)


def register_compare(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("run_folder", type=Path, metavar="RUN", help="what hemoscope federated simulate wrote")
    parser.add_argument("--data", type=Path, required=True, metavar="CACHE", help="that it was simulated on")
    parser.add_argument("--output", type=Path, required=True, metavar="REPORT", help="folder of the comparison")
    parser.add_argument(
        "--arms", type=_words, default=("pooled", "alone"), metavar="pooled,alone", help="what to train beside it"
    )
    parser.add_argument(
        "--with",
        type=_named,
        action="append",
        default=[],
        dest="others",
        metavar="NAME=RUN",
        help="another federated run over the same sites",
    )
    parser.add_argument("--only", nargs="+", action="extend", default=[], metavar="PART", help="these parts alone")
    parser.add_argument("--init", metavar="PATH", help="the weights that the run began with, where they are a file")
    parser.add_argument("--resume", action="store_true", help="go on with a comparison that stopped")
    parser.add_argument("--workers", type=int, metavar="N", help="trainings side by side (default: one a processor)")
    parser.add_argument("--threads", type=int, metavar="N", help="threads of PyTorch in each (default: what is left)")
    parser.set_defaults(run=run_compare)


def run_simulate(arguments: argparse.Namespace) -> int:
    """Deal out, train, gather; a line a round."""
    from hemoscope.data.cache import open_cache
    from hemoscope.federated.settings.federation import read_federation
    from hemoscope.federated.simulation.simulated_sites import Partitioning
    from hemoscope.federated.simulation.simulation import Machine, simulate

    federation = read_federation(arguments.federation, arguments.set)
    partitioning = Partitioning(
        sites=arguments.sites, by=arguments.partition, seed=arguments.seed, uneven=arguments.shares
    )
    with progress_bar() as show:
        parts = simulate(
            federation,
            open_cache(arguments.data),
            arguments.output,
            partitioning=partitioning,
            only=tuple(arguments.only),
            resume=arguments.resume,
            machine=Machine(actors=arguments.actors, verbose=arguments.verbose),
            poison=dict(arguments.poison),
            show=show,
            report_round=lambda part, record: print(round_line(part, record, federation.rounds), flush=True),
        )
    run, data = arguments.output, arguments.data
    print(f"finished: {run} ({', '.join(parts)}).")
    print(f"Next: hemoscope federated compare {run} --data {data} --output REPORT")
    return ExitCode.OK


def run_compare(arguments: argparse.Namespace) -> int:
    """Train the other arms, measure, write the report and print its table."""
    from hemoscope.data.cache import open_cache
    from hemoscope.federated.simulation.comparison import Budget, compare
    from hemoscope.federated.simulation.comparison_page import write_comparison

    workers, threads = _share(arguments.workers, arguments.threads)
    _check_report(arguments.output, resume=arguments.resume)
    budget = Budget(kinds=arguments.arms, init=arguments.init, workers=workers, threads=threads)
    with progress_bar() as show:
        report = compare(
            arguments.run_folder,
            open_cache(arguments.data),
            arguments.output,
            budget=budget,
            others=dict(arguments.others),
            only=tuple(arguments.only),
            show=show,
        )
    paths = write_comparison(report, arguments.output)
    _print(report)
    print(f"written: {', '.join(path.name for path in paths)} in {arguments.output}")
    return ExitCode.OK


def _print(report: Mapping[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    from hemoscope.federated.simulation.comparison_page import shown, shows_noninferiority, verdict

    table = Table(title=f"AUROC of any, {len(report['parts'])} parts")
    for column in ("", *report["levels"]):
        table.add_column(column)
    found = {level: labels["any"] for level, labels in report["levels"].items()}
    for kind in ("arms", "differences"):
        for name in found["slice"][kind]:
            table.add_row(name, *(shown(one[kind][name], signed=kind == "differences") for one in found.values()))
        table.add_section()
    Console().print(table)
    for level in report["levels"]:
        for against, kept in verdict(report, level, "federated").items():
            margin = f" less {report['margin']}" if against == "pooled" else ""
            print(f"{level}: the point estimate of federated is {'' if kept else 'NOT '}above {against}{margin}")
        if (noninferior := shows_noninferiority(report, level, "federated")) is not None:
            print(f"{level}: non-inferiority to pooled by {report['margin']} is {'' if noninferior else 'NOT '}shown")


def _share(workers: int | None, threads: int | None) -> tuple[int, int]:
    cores = available_processors()
    for name, value in (("--workers", workers), ("--threads", threads)):
        if value is not None and value < 1:
            msg = f"{name} must be at least 1, got {value}"
            raise ConfigError(msg)
    count = workers or cores
    return count, threads or max(1, cores // count)


def _check_report(output: Path, *, resume: bool) -> None:
    if output.exists() and not resume:
        msg = f"{output.name} exists already. Go on with --resume, or choose a new --output"
        raise ConfigError(msg)


def _numbers(text: str) -> tuple[float, ...]:
    return tuple(float(word) for word in text.split(","))


def _words(text: str) -> tuple[str, ...]:
    return tuple(word for word in text.split(",") if word)


def _named(text: str) -> tuple[str, Path]:
    name, equals, path = text.partition("=")
    if not (name and equals and path):
        msg = f"give NAME=RUN, got {text!r}"
        raise argparse.ArgumentTypeError(msg)
    return name, Path(path)


def _poison(text: str) -> "tuple[int, Poison]":
    site, _, what = text.partition("=")
    number = site.removeprefix("site-")
    if not (number.isdecimal() and what in _POISONS):
        msg = f"give site-2=flip or site-2=scale, got {text!r}"
        raise argparse.ArgumentTypeError(msg)
    return int(number), "flip" if what == "flip" else "scale"
