"""``hemoscope train``: train an experiment on a cache."""

import argparse
import json
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from hemoscope.cli.exit_codes import ExitCode
from hemoscope.cli.progress import progress_bar
from hemoscope.errors import TrainingError
from hemoscope.progress import no_stage_progress

if TYPE_CHECKING:
    from hemoscope.training.experiment import Experiment
    from hemoscope.training.train import TrainingRecord


def register(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument(
        "experiment", type=Path, metavar="EXPERIMENT", help="a TOML file, or the name of a shipped one (see --list)"
    )
    parser.add_argument("--list", action=_ListExperiments, nargs=0, help="list the experiments that ship, and exit")
    parser.add_argument("--data", type=Path, required=True, metavar="CACHE", help="folder written by hemoscope prepare")
    parser.add_argument("--output", type=Path, required=True, metavar="RUN", help="folder of the run")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change a key, as run.epochs=2")
    parser.add_argument(
        "--init", metavar="PATH", help="initial weights: a file, imagenet, pretrained or none (sets run.init)"
    )
    parser.add_argument(
        "--only", action="append", default=[], metavar="SPLIT", help="train only this split: fold-0 ... final, or split"
    )
    parser.add_argument("--resume", action="store_true", help="continue an interrupted run")
    parser.add_argument("--threads", type=int, metavar="N", help="threads of PyTorch (default: PyTorch's)")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Train every split of the experiment, or those named. Only the first of several processes prints."""
    from hemoscope.data.cache import open_cache
    from hemoscope.training.experiment import read_experiment
    from hemoscope.training.train import train
    from hemoscope.training.trainer import is_first_process

    changes = list(arguments.set)
    if arguments.init is not None:
        changes.append(f"run.init={json.dumps(arguments.init)}")  # a TOML string, whatever the path contains
    experiment = read_experiment(arguments.experiment, changes)
    with progress_bar() if is_first_process() else nullcontext(no_stage_progress) as show:
        records = train(
            experiment,
            open_cache(arguments.data),
            arguments.output,
            only=tuple(arguments.only),
            resume=arguments.resume,
            threads=arguments.threads,
            show=show,
            warn=lambda line: print(f"warning: {line}", file=sys.stderr),
        )
    if is_first_process():
        _print_records(records, arguments.output, experiment)
    return ExitCode.OK


class _ListExperiments(argparse.Action):
    """Print the names of the shipped experiments and exit, whatever else is missing on the command line."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from hemoscope.training.toml_config import shipped

        for name, description in shipped("experiment").items():
            print(f"{name:22}{description.partition('. ')[0]}")
        parser.exit()


def _print_records(records: "Sequence[TrainingRecord]", output: Path, experiment: "Experiment") -> None:
    from hemoscope.training.run_scores import check_finished

    for record in records:
        losses = ", ".join(f"{name} {value:.4g}" for name, value in record.losses.items() if "/" in name)
        passes = f"{record.epochs} epochs" if record.epochs != 1 else "1 epoch"
        print(f"{record.part}: {passes}, {record.steps:,} steps, {_duration(record.seconds)}; {losses}")
    try:
        check_finished(output, experiment)
    except TrainingError as error:
        print(f"written to {output}. It cannot be exported: {error}")
    else:
        print(f"finished: {output}. Next: hemoscope export {output} --output BUNDLE")


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"
