"""A model's card for a person at a terminal: what it learned from, how well it did, and its limits."""

from collections.abc import Iterator, Sequence

from rich import box
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from hemoscope.inference.calibration import ConformalSets, OperatingPoint, Proportion, StrataTable, UnsureRule
from hemoscope.inference.card import Estimate, FederationRecord, ModelCard, ScoreTable, TrainingData
from hemoscope.inference.precision import PrecisionTest
from hemoscope.labels import Hemorrhage, PerLabel
from hemoscope.reports.report import printable


def print_card(card: ModelCard, sha256: str, console: Console) -> None:
    """Write the whole card to ``console``; ``sha256`` identifies the bundle."""
    console.print(Text(printable(f"{card.name} {card.version}"), style="bold"))
    console.print(Text(printable(card.description)))
    console.print(Text(f"sha256 {sha256}", style="dim"), soft_wrap=True)  # whole at any width, to be copied
    for level in ("study", "slice"):
        _title(console, f"Operating points of a {level}")
        console.print(_operating_points(card, getattr(card.operating_points, level)))
        if level == "study":
            console.print(_urgent(card.operating_points.urgent))
            for line in unsure_lines(card.unsure):
                console.print(Text(line))
    console.print(Text(measured_on(card), style="dim"))
    console.print(Text(_reading(card)))
    for shown in (*score_tables(card.scores), *map(_strata, card.strata or ())):
        console.print()
        console.print(shown)
    if card.precision:
        _title(console, "Reduced precision")
        for test in card.precision:
            console.print(_bullet(printable(_precision(test))))
    if card.federation is not None:
        _title(console, "Federation")
        console.print(_federation(card.federation))
    _title(console, "Training data")
    for data in card.training_data:
        console.print(_bullet(_data(data)))
    _title(console, "Limits of use")
    for limit in card.limits_of_use:
        console.print(_bullet(printable(limit)))
    console.print()
    console.print(Text(printable(card.disclaimer), style="bold"))


def score_tables(tables: Sequence[ScoreTable]) -> Iterator[RenderableType]:
    """Yield each evaluation as two tables under its name, then what the brackets mean."""
    for scores in tables:
        title = Text(printable(f"Scores: {scores.name}"), style="bold")
        yield Group(title, _about(scores), _ranking(scores), Text(), _calibration(scores))
    if tables:
        yield Text(MEANING, style="dim")


MEANING = (
    "In brackets: 95% intervals by patient; numbers of patients; after the calibration error, its mean if the "
    "probabilities were calibrated. Calibrated probabilities have slope 1 and observed/expected 1. No interval "
    "includes how much scores change if the network is trained again."
)


def measured_on(card: ModelCard) -> str:
    """Return how the sensitivity and specificity of the card's operating points were measured."""
    points = card.operating_points
    every = (*points.study.values, *points.slice.values, points.urgent)
    methods = sorted({point.performance.method for point in every if point.performance is not None})
    words = [_METHODS[method] for method in methods]
    if any(point.performance is None and point.sensitivity is not None for point in every):
        words.append("with an asterisk, in sample, on the rows that the threshold was chosen on: expect lower values")
    return f"Sensitivity and specificity: {'; '.join(words) or 'not measured'}."


_METHODS = {
    "cross_fitted": "cross-fitted, each patient decided by thresholds fitted on the other patients",
    "test_set": "of these thresholds on the test set",
}


def _precision(test: PrecisionTest) -> str:
    verdict = "accepted" if test.accepted else "not accepted"
    return (
        f"{test.precision} {verdict}: {test.time:.2f} of the time of float32 on {test.processor}. AUROC changes by up "
        f"to {test.auroc:.4f}, the probability of any by {test.slice:.3f} in a slice and {test.study:.3f} in a study; "
        f"{test.crossed} of {test.studies} studies cross a threshold that they were not near. Measured on {test.data}"
    )


def _title(console: Console, title: str) -> None:
    console.print()
    console.print(Text(printable(title), style="bold"))


def _grid(*columns: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    for place, column in enumerate(columns):
        table.add_column(column, no_wrap=place == 0)
    return table


def _operating_points(card: ModelCard, points: PerLabel[OperatingPoint]) -> Table:
    table = _grid("Label", "Validation", "Threshold", "Sensitivity", "Specificity", "Rule")
    for label, point in points.items():
        validation = Text("established", "green") if card.established[label] else Text("not established", "yellow")
        rule = Text(printable(point.rule))
        table.add_row(label.display, validation, f"{point.threshold:.2f}", *(Text(one) for one in rates(point)), rule)
    return table


def rates(point: OperatingPoint) -> tuple[str, str]:
    """Return sensitivity and specificity with interval and counts, or those in sample with an asterisk."""
    found = point.performance
    if found is not None:
        return _proportion(found.sensitivity), _proportion(found.specificity)
    return _in_sample(point.sensitivity), _in_sample(point.specificity)


def _in_sample(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}*"


def _proportion(found: Proportion | None) -> str:
    if found is None:
        return "-"
    return f"{found.value:.2f} ({found.low:.2f}-{found.high:.2f}) {found.hits} of {found.rows}"


def _urgent(point: OperatingPoint) -> Text:
    sensitivity, specificity = rates(point)
    numbers = [f"sensitivity {sensitivity}", f"specificity {specificity}"]
    if point.performance is not None and point.performance.precision is not None:
        numbers.append(f"precision {_proportion(point.performance.precision)}")
    name = Hemorrhage.ANY.display
    reached = "" if {sensitivity, specificity} == {"-"} else f" ({', '.join(numbers)})"
    return Text(printable(f"Immediate when {name} reaches {point.threshold:.2f} in the study: {point.rule}{reached}"))


def unsure_lines(rule: UnsureRule | None) -> Iterator[str]:
    """Say between which probabilities a study is unsure, and how that was measured; first the sets in use."""
    if rule is None:
        return
    name = Hemorrhage.ANY.display
    for sets in (rule.used, *(one for one in rule.sets if one.alpha != rule.alpha)):
        between = f"{name} in the study from {sets.low:.2f} to {sets.high:.2f}"
        start = f"Unsure: {between}" if sets.alpha == rule.alpha else f"Not in use: {between}"
        yield f"{start} (conformal, alpha {sets.alpha:g}){_unsure_measured(sets)}"


def _unsure_measured(sets: ConformalSets) -> str:
    found = sets.performance
    if found is None:
        return "."
    shares = {
        "unsure": found.unsure,
        "not low of those with hemorrhage": found.not_low,
        "not high of those without": found.not_high,
        "without hemorrhage of the low": found.low_without,
        "with it of the high": found.high_with,
    }
    return f": {'; '.join(f'{name} {_proportion(one)}' for name, one in shares.items())}."


def _reading(card: ModelCard) -> str:
    """How slices become a study."""
    rule = f"the mean of the highest {card.study_rule.extent_mm:g} mm of slices"
    if card.sequence is None:
        found = f"Slices are scored one by one; the study's score is {rule}."
    else:
        study = "a network's own" if card.sequence.study_scores == "sequence" else rule
        found = f"Slices are scored beside all others of their series; the study's score is {study}."
    return " ".join([found, *_neighbors(card)])


def _neighbors(card: ModelCard) -> Iterator[str]:
    """What a slice takes from the slices around it."""
    thin, smoothing = card.thin_series, card.slice_rule
    if thin is not None and card.preprocessing.slab_mm is not None:
        yield (
            f"Of thin slices, one every {thin.step_mm:g} mm is scored, and more where a probability between them may "
            f"be wrong by more than {thin.tolerance:g}; the others are interpolated."
        )
    if smoothing is not None and smoothing.width_mm is not None:
        yield f"Slice scores are smoothed along the head by a Gaussian of {smoothing.width_mm:g} mm."


def _about(scores: ScoreTable) -> Text:
    rows = "slices" if scores.level == "slice" else "studies"
    return Text(
        f"{printable(scores.description)}\n{scores.n_images} {rows} of {scores.n_patients} patients.", style="dim"
    )


def _ranking(scores: ScoreTable) -> Table:
    table = _grid("Label", "AUROC", "Average precision", "Positive", "Negative")
    for label, score in scores.labels.items():
        auroc = Text(_estimate(score.auroc))
        if score.auroc is None and score.reason:
            auroc = Text(printable(score.reason), style="dim")
        counts = (
            _count(score.n_positive, score.n_positive_patients),
            _count(score.n_negative, score.n_negative_patients),
        )
        table.add_row(label.display, auroc, _estimate(score.average_precision), *counts)
    return table


def _calibration(scores: ScoreTable) -> Table:
    table = _grid("Label", "Slope", "Observed/expected", "Calibration error")
    for label, score in scores.labels.items():
        error = "-" if score.ece is None else f"{score.ece.value:.3f}"
        if score.ece is not None and score.ece_if_calibrated is not None:
            error = f"{error} ({score.ece_if_calibrated.value:.3f})"
        table.add_row(label.display, _estimate(score.slope, 2), _estimate(score.observed_expected, 2), error)
    return table


def _strata(strata: StrataTable) -> Group:
    title = Text(printable(f"Strata: {strata.name}"), style="bold")
    about = Text(f"Slices flagged where any hemorrhage has specificity {strata.specificity:g}.", style="dim")
    table = _grid("Slices", "Found, of those with hemorrhage", "Flagged, of the others")
    for one in strata.strata:
        name = printable(f"{one.kind}: {one.name}")
        table.add_row(name, Text(_proportion(one.found)), Text(_proportion(one.false_alarms)))
    return Group(title, about, table)


def _count(rows: int | None, patients: int | None) -> str:
    return "-" if rows is None else f"{rows} ({patients})"


def _estimate(estimate: Estimate | None, digits: int = 3) -> str:
    if estimate is None:
        return "-"
    if estimate.low is None or estimate.high is None:
        return f"{estimate.value:.{digits}f}"
    return f"{estimate.value:.{digits}f} ({estimate.low:.{digits}f}-{estimate.high:.{digits}f})"


def _federation(record: FederationRecord) -> Text:
    """How the sites trained, one fact a line."""
    private = "" if record.epsilon is None else f"epsilon {record.epsilon:.3g}, delta {record.delta:g}, for whole sites"
    facts = {
        "Sites": f"{record.sites}; images stayed there",
        "Rounds": f"{record.rounds}, of {record.local_epochs} local epochs each",
        "Strategy": f"{record.strategy}, weighted by {record.weighting}, batch norm {record.batch_norm}",
        "Secure aggregation": "yes" if record.secure_aggregation else "no: the server saw each site's updates",
        "Differential privacy": private or "none",
        "Slices": "not reported" if record.slices is None else str(record.slices),
        "Patients": "not reported" if record.patients is None else str(record.patients),
        "Personalised": "at one site, after the last round" if record.personalised else "no",
    }
    return Text("\n".join(f"  {name}: {printable(fact)}" for name, fact in facts.items()))


def _data(data: TrainingData) -> str:
    where = f" DOI {data.doi}." if data.doi else ""
    return printable(f"{data.name} {data.version}, {data.license}.{where} {data.attribution} Changes: {data.changes}")


def _bullet(text: str) -> Padding:
    grid = Table.grid(padding=(0, 1))
    grid.add_row("•", Text(text))
    return Padding(grid, (0, 0, 0, 1))
