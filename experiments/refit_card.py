"""Refits the card of a bundle from the stored scores of its run: the same weights, nothing is trained.

    python experiments/refit_card.py RUN BUNDLE OUTPUT --model-version 2.7 --scores T.json --statements S.toml
    python experiments/refit_card.py RUN BUNDLE --compare RUN/card-2.3.json
    python experiments/refit_card.py RUN RUN/card-2.3.json --compare RUN/card-2.json

RUN is ``experiments/results/default``, or any other run of which only the scores were kept: from one that still has its
weights, ``hemoscope export`` does the same. The first line writes a bundle with the graph
of BUNDLE. It refuses a run whose scores do not give the calibration of BUNDLE, and a BUNDLE that averages networks of
several seeds. The second prints, as Markdown, every
figure of an older card beside that of BUNDLE, and how much the cross-fitted figures depend on the folds; the third
compares two cards that do not ship any more. Seconds.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from hemoscope.cli.export import read_score_tables
from hemoscope.inference.bundle import ModelBundle, load_bundle, write_bundle
from hemoscope.inference.calibration import Calibration, OperatingPoint, PointPerformance, Proportion
from hemoscope.inference.card import Estimate, LabelScore, ModelCard
from hemoscope.labels import LABELS, Hemorrhage
from hemoscope.training.card_words import read_statements
from hemoscope.training.export import read_dataset, read_run, read_split_record, run_card
from hemoscope.training.fitted_card import HALF_WEIGHTS, SEVERAL_SEEDS, Origin
from hemoscope.training.fitted_levels import cross_fit_level
from hemoscope.training.run_scores import out_of_fold_scores

# Newton's method stops at this, so two machines agree within it.
CALIBRATION_TOLERANCE = 1e-5
FOLD_SEEDS = range(10)


def refitted(
    run: Path, bundle: ModelBundle, *, version: str, tables: list[Path], statements: Path | None = None
) -> ModelCard:
    """Return the card of the run, if its scores are those that the bundle was fitted on. Raises SystemExit if not."""
    if SEVERAL_SEEDS in bundle.card.description:
        name = f"{bundle.card.name} {bundle.card.version}"
        message = f"{name} averages networks of several seeds, and one run is read here. Use hemoscope export RUN RUN"
        raise SystemExit(message)
    experiment = read_run(run)
    sequence = bundle.card.sequence
    origin = Origin(
        experiment=experiment,
        dataset=read_dataset(run),
        split=read_split_record(run, experiment),
        embedding_size=0 if sequence is None else sequence.embedding_size,
        federation=bundle.card.federation,
        half_weights=HALF_WEIGHTS in bundle.card.description,
        statements=None if statements is None else read_statements(statements),
    )
    scores = [table for path in tables for table in read_score_tables(path)]
    card = run_card(run, origin, version=version, scores=scores)
    if not same_model(card, bundle.card):
        message = f"{run.name} is not the run of {bundle.card.name} {bundle.card.version}: another calibration or input"
        raise SystemExit(message)
    return card


def same_model(one: ModelCard, other: ModelCard) -> bool:
    """Whether two cards have the same input and the same calibration, within the rounding of another machine."""

    def lines(card: ModelCard) -> list[tuple[float, float]]:
        table = (*card.calibration.slice.values, *card.calibration.study.values)
        return [(line.scale, line.bias) for line in table if isinstance(line, Calibration)]

    return (one.name, one.preprocessing) == (other.name, other.preprocessing) and np.allclose(
        lines(one), lines(other), atol=CALIBRATION_TOLERANCE
    )


def comparison(old: ModelCard, new: ModelCard) -> Iterator[str]:
    """Yield Markdown tables of every operating point and score of two cards."""
    yield f"| operating point | in sample, version {old.version} | cross-fitted, version {new.version} | precision |"
    yield "|---|---|---|---|"
    before, after = dict(points_of(old)), dict(points_of(new))
    for name, point in after.items():
        yield f"| {name} | {in_sample(before[name])} | {held_out(point.performance)} |"
    tables = {table.name: table for table in old.scores}
    for table in new.scores:
        yield ""
        yield (
            f"| {table.name} | AUROC, version {old.version} | version {new.version} | average precision, version "
            f"{old.version} | version {new.version} | calibration error, version {old.version} "
            f"| version {new.version} (if calibrated) | slope | observed/expected |"
        )
        yield "|---|---|---|---|---|---|---|---|---|"
        for label in LABELS:
            yield score_row(label, tables[table.name].labels[label], table.labels[label])


def points_of(card: ModelCard) -> Iterator[tuple[str, OperatingPoint]]:
    """Yield the operating points of a card with their names."""
    points = card.operating_points
    for level in ("study", "slice"):
        for label, point in getattr(points, level).items():
            yield f"{level}, {label.value}", point
            if level == "study" and label is Hemorrhage.ANY:
                yield "study, any, urgent", points.urgent


def in_sample(point: OperatingPoint) -> str:
    """Return sensitivity / specificity on the rows that the threshold was chosen on."""
    if point.sensitivity is None or point.specificity is None:
        return "-"
    return f"{number(point.sensitivity)} / {number(point.specificity)}"


def held_out(found: PointPerformance | None) -> str:
    """Return sensitivity / specificity, and in the next cell precision, with intervals and counts."""
    if found is None:
        return "- | -"
    return f"{share(found.sensitivity)} / {share(found.specificity)} | {share(found.precision)}"


def share(found: Proportion | None) -> str:
    """Return a proportion with its interval and counts."""
    if found is None:
        return "-"
    return f"{number(found.value)} ({number(found.low)} to {number(found.high)}), {found.hits} of {found.rows}"


def score_row(label: Hemorrhage, old: LabelScore, new: LabelScore) -> str:
    """Return one label's scores in both cards."""
    before = "-" if old.ece is None else estimate(old.ece)
    now = "-" if new.ece is None else estimate(new.ece)
    if new.ece is not None and new.ece_if_calibrated is not None:
        now = f"{now} ({number(new.ece_if_calibrated.value)})"
    pairs = [estimate(one) for one in (old.auroc, new.auroc, old.average_precision, new.average_precision)]
    ratios = [estimate(one, 2) for one in (new.slope, new.observed_expected)]
    return f"| {' | '.join((label.value, *pairs, before, now, *ratios))} |"


def estimate(found: Estimate | None, digits: int = 3) -> str:
    """Return a score with its interval, if it has one."""
    if found is None:
        return "-"
    if found.low is None or found.high is None:
        return number(found.value, digits)
    return f"{number(found.value, digits)} ({number(found.low, digits)} to {number(found.high, digits)})"


def number(value: float, digits: int = 3) -> str:
    """Return a number without a zero before the point."""
    text = f"{value:.{digits}f}"
    return text[1:] if text.startswith("0.") else text


def fold_ranges(run: Path, card: ModelCard) -> Iterator[str]:
    """Yield how the cross-fitted figures of studies vary over ten assignments of patients to folds."""
    scored = out_of_fold_scores(run, read_run(run), card.study_rule).studies
    points = card.operating_points
    found = [cross_fit_level(scored, points.study, card.established, points.urgent, seed=seed) for seed in FOLD_SEEDS]
    held = [one for one in found if one is not None]
    yield f"| study | sensitivity, {len(held)} assignments of patients to folds | specificity |"
    yield "|---|---|---|"
    for k, label in enumerate(LABELS):
        yield fold_row(label.value, [one.decisions[:, k] for one in held], scored.truth[:, k])
    yield fold_row("any, urgent", [one.urgent for one in held], scored.truth[:, 0])


def fold_row(name: str, decisions: list[np.ndarray], truth: np.ndarray) -> str:
    """Return the smallest and the largest sensitivity and specificity."""
    cells = []
    for positive in (1.0, 0.0):
        values = [float((one[truth == positive] == (positive == 1.0)).mean()) for one in decisions]
        cells.append(f"{number(min(values))} to {number(max(values))}")
    return f"| {name} | {' | '.join(cells)} |"


def read_card(path: Path) -> ModelCard:
    """Read a card without its bundle."""
    return ModelCard.from_json(json.loads(path.read_text()))


def compare(run: Path, old: Path, card: ModelCard) -> None:
    """Print the tables of two cards, and the ranges of the second."""
    sys.stdout.write("\n".join([*comparison(read_card(old), card), "", *fold_ranges(run, card)]) + "\n")


def main() -> None:
    """Refit a card, or compare one with an older card."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("output", type=Path, nargs="?")
    parser.add_argument("--model-version", default="1")
    parser.add_argument("--scores", type=Path, action="append", default=[])
    parser.add_argument("--statements", type=Path)
    parser.add_argument("--compare", type=Path, metavar="CARD.json")
    arguments = parser.parse_args()
    if arguments.bundle.suffix == ".json":
        compare(arguments.run, arguments.compare, read_card(arguments.bundle))
        return
    bundle = load_bundle(arguments.bundle)
    if arguments.output is not None:
        card = refitted(
            arguments.run,
            bundle,
            version=arguments.model_version,
            tables=arguments.scores,
            statements=arguments.statements,
        )
        bundle = write_bundle(arguments.output, card, bundle.read_graph(), sequence=bundle.read_sequence())
        sys.stdout.write(f"{card.name} {card.version} in {arguments.output}, SHA-256 {bundle.sha256}\n")
    if arguments.compare is not None:
        compare(arguments.run, arguments.compare, bundle.card)


if __name__ == "__main__":
    main()
