"""``hemoscope train``: an experiment file and a cache in, a run out."""

import argparse
import sys
from pathlib import Path

from hemoscope.cli.exit_codes import ExitCode
from hemoscope.cli.progress import progress_bar


def register(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("experiment", type=Path, metavar="EXPERIMENT.toml")
    parser.add_argument("--data", type=Path, required=True, metavar="CACHE", help="what hemoscope prepare wrote")
    parser.add_argument("--output", type=Path, required=True, metavar="RUN", help="folder of the run")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change a key, as run.epochs=2")
    parser.add_argument("--only", action="append", default=[], metavar="PART", help="train this part: fold-0 ... final")
    parser.add_argument("--resume", action="store_true", help="go on where an interrupted run stopped")
    parser.add_argument("--threads", type=int, metavar="N", help="threads of PyTorch (default: its own choice)")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Train every part of the experiment, or those named."""
    from hemoscope.data.cache import open_cache
    from hemoscope.training.experiment import read_experiment
    from hemoscope.training.train import train

    experiment = read_experiment(arguments.experiment, arguments.set)
    with progress_bar() as show:
        train(
            experiment,
            open_cache(arguments.data),
            arguments.output,
            only=tuple(arguments.only),
            resume=arguments.resume,
            threads=arguments.threads,
            show=show,
        )
    sys.stdout.write(f"finished: {arguments.output}. Next: hemoscope export {arguments.output} --output BUNDLE\n")
    return ExitCode.OK
