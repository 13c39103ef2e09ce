"""Measures the bars of the next default model: averages runs of several seeds, fits all nested, prints one table.

    python experiments/bars.py RUN [RUN ...] --data CACHE [--bundle BUNDLE] [--mimics ROWS.csv] --output OUTPUT
    python experiments/bars.py experiments/results/trial-288 --output experiments/results

Each RUN has the scores of all its folds; they differ by their seed. Without ``--data``, their stored scores are
averaged. With it, their networks score their held-out slices again, so that three ways are compared: the mean of the
scores with the mirror image, without it, and the network of the mean weights without it. The scored runs are kept in
OUTPUT/scored; those that are there are not scored again. The shipped model's record stands beside them.

Of each, the smoothing width, calibrations and thresholds of a fold of patients are chosen on the other folds, and so is
the length of head that the study rule averages, in a row of its own (``study_rules.py``). ``--bundle`` adds the size
and the time of a slice beside the shipped model (CPU seconds, one thread, alternating), ``--mimics`` the rows that
``mimic_set.py --write`` wrote. What cannot be computed says why. The figures go to OUTPUT/bars.json and bars.md, beside
those of earlier calls for other runs.

To export the same: ``rescore.py RUN --set reading.mirror=false --output SCORED`` for each seed, then
``hemoscope export SCORED SCORED SCORED --half-weights``.
"""

import argparse
import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from bar_figures import NO_BAR, Bar, bundle_bars, mimic_bar, score_bars
from rescore import rescore
from rich.console import Console

from hemoscope.errors import HemoscopeError

RESULTS = Path(__file__).parent / "results"
DEFAULT = RESULTS / "default"
SHIPPED_BUNDLE = Path(__file__).parents[1] / "src" / "hemoscope" / "bundles" / "default"
SHIPPED_MIMICS = RESULTS / "mimic-set" / "default-2.5.csv"
# How several networks are read: whether with the mirror image, and of what the mean is taken.
WAYS = {
    "scores, mirrored": (True, "scores"),
    "scores": (False, "scores"),
    "weights": (False, "weights"),
}


def scored_runs(runs: Sequence[Path], folder: Path, data: Path | None) -> dict[str, Path]:
    """Return a run folder of scores for each way of reading these runs; scored now, unless it is there already."""
    if data is None and len(runs) == 1:
        return {runs[0].name: runs[0]}
    if data is None:
        ways = {"mean of stored scores": ((), "scores")}
    else:
        ways = {
            f"mean of {name}": ((f"reading.mirror={json.dumps(mirror)}",), mean)
            for name, (mirror, mean) in WAYS.items()
            if mean == "scores" or len(runs) > 1
        }
    found = {}
    for name, (changes, mean) in ways.items():
        output = folder / name.replace(",", "").replace(" ", "-")
        if not (output / "experiment.json").is_file():  # rescore writes it last
            shutil.rmtree(output, ignore_errors=True)
            rescore(runs, output, data=data, changes=changes, mean=mean)
        found[name] = output
    return found


def with_strata(run: Path) -> Path:
    """Give a run of CT-ICH the ages of its patients, if it has none."""
    if not (run / "strata.csv").is_file():
        shutil.copyfile(DEFAULT / "strata.csv", run / "strata.csv")
    return run


def markdown(tables: dict[str, list[Bar]]) -> str:
    """Return the table: one row a bar, one column a model; then why figures are missing."""
    lines = [
        "Bars of the next default model, out of fold on CT-ICH: the figure, its 95% interval by patient, and whether",
        "the bar is met. Bars were fixed before the trainings. `experiments/bars.py` says how each is measured.\n",
    ]
    for name, bars in tables.items():
        missed = [bar.name for bar in bars if bar.met is False]
        unknown = sum(bar.value is None and bar.wanted != NO_BAR for bar in bars)
        counted = f"{sum(bar.met is True for bar in bars)} met, {len(missed)} missed, {unknown} without a figure"
        lines.append(f"- **{name}**: {counted}. Missed: {', '.join(missed) or 'none'}.")
    lines += ["", f"| bar | wanted | {' | '.join(tables)} |", "|---|---|" + "---|" * len(tables)]
    for row in zip(*tables.values(), strict=True):
        lines.append(f"| {row[0].name} | {row[0].wanted} | {' | '.join(map(_cell, row))} |")
    reasons = {f"{bar.name}: {bar.note}": None for bars in tables.values() for bar in bars if bar.value is None}
    if reasons:
        lines += ["", "Without a figure:", "", *(f"- {reason}" for reason in reasons)]
    return "\n".join(lines) + "\n"


def _cell(bar: Bar) -> str:
    if bar.value is None:
        return "-"
    interval = "" if bar.low is None or bar.high is None else f" ({bar.low:.3f} to {bar.high:.3f})"
    note = f", {bar.note}" if bar.note else ""
    verdict = "" if bar.met is None else "; met" if bar.met else "; **missed**"
    return f"{bar.value:.3f}{interval}{note}{verdict}"


def bars_of(run: Path, *, bundle: Path | None, mimics: Sequence[Path]) -> Iterator[Bar]:
    """Yield all bars of one run."""
    yield from score_bars(run, baseline=DEFAULT)
    yield mimic_bar(mimics)
    yield from bundle_bars(bundle, SHIPPED_BUNDLE)


def stored(path: Path) -> dict[str, list[Bar]]:
    """Return the tables of earlier calls."""
    if not path.is_file():
        return {}
    return {name: [Bar(**bar) for bar in bars] for name, bars in json.loads(path.read_text()).items()}


def main() -> None:
    """Measure, write and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="*", metavar="RUN")
    parser.add_argument("--data", type=Path, metavar="CACHE", help="what the runs were trained on")
    parser.add_argument("--bundle", type=Path, help="exported from the runs")
    parser.add_argument("--mimics", type=Path, action="append", default=[], metavar="ROWS.csv")
    parser.add_argument("--output", type=Path, required=True)
    chosen = parser.parse_args()
    others = [run for run in chosen.runs if run.resolve() != DEFAULT.resolve()]  # which stands there anyway
    scored = scored_runs(chosen.runs, chosen.output / "scored", chosen.data) if others else {}
    try:
        tables = {"default": list(bars_of(DEFAULT, bundle=SHIPPED_BUNDLE, mimics=[SHIPPED_MIMICS]))}
        for name, run in scored.items():
            tables[name] = list(bars_of(with_strata(run), bundle=chosen.bundle, mimics=chosen.mimics))
    except HemoscopeError as error:
        raise SystemExit(str(error)) from error
    chosen.output.mkdir(parents=True, exist_ok=True)
    tables = {**stored(chosen.output / "bars.json"), **tables}
    document = {name: [asdict(bar) for bar in bars] for name, bars in tables.items()}
    (chosen.output / "bars.json").write_text(json.dumps(document, indent=1, allow_nan=False) + "\n")
    (chosen.output / "bars.md").write_text(markdown(tables))
    Console().print(markdown(tables), markup=False, highlight=False, soft_wrap=True)


if __name__ == "__main__":
    main()
