"""A model's card for a person at a terminal: what it learned from, how well it did, and its limits."""

from collections.abc import Iterator, Sequence

from rich import box
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from hemoscope.inference.calibration import OperatingPoint
from hemoscope.inference.card import Estimate, FederationRecord, LabelScore, ModelCard, ScoreTable, TrainingData
from hemoscope.labels import LABELS, Hemorrhage
from hemoscope.reports.report import printable


def print_card(card: ModelCard, sha256: str, console: Console) -> None:
    """Write the whole card to ``console``; ``sha256`` identifies the bundle."""
    console.print(Text(printable(f"{card.name} {card.version}"), style="bold"))
    console.print(Text(printable(card.description)))
    console.print(Text(f"sha256 {sha256}", style="dim"), soft_wrap=True)  # whole at any width, to be copied
    _title(console, "Operating points")
    console.print(_operating_points(card))
    console.print(_urgent(card.operating_points.urgent))
    console.print(Text(_reading(card)))
    for shown in score_tables(card.scores):
        console.print()
        console.print(shown)
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
    """Yield each evaluation as a table under its name, then what the brackets mean."""
    for scores in tables:
        yield Group(Text(printable(f"Scores: {scores.name}"), style="bold"), _about(scores), _scores(scores))
    if tables:
        meaning = "In brackets: 95% intervals by bootstrap over patients; patients with a positive slice."
        yield Text(meaning, style="dim")


def _title(console: Console, title: str) -> None:
    console.print()
    console.print(Text(printable(title), style="bold"))


def _grid(*columns: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    for place, column in enumerate(columns):
        table.add_column(column, no_wrap=place == 0)
    return table


def _operating_points(card: ModelCard) -> Table:
    table = _grid("Label", "Validation", "Study", "Slice", "Rule for the study")
    for label in LABELS:
        study, one = card.operating_points.study[label], card.operating_points.slice[label]
        validation = Text("established", "green") if card.established[label] else Text("not established", "yellow")
        table.add_row(label.display, validation, f"{study.threshold:.2f}", f"{one.threshold:.2f}", _rule(study))
    return table


def _rule(point: OperatingPoint) -> Text:
    reached = {"sensitivity": point.sensitivity, "specificity": point.specificity}
    numbers = ", ".join(f"{name} {value:.2f}" for name, value in reached.items() if value is not None)
    return Text(printable(f"{point.rule} ({numbers})" if numbers else point.rule))


def _urgent(point: OperatingPoint) -> Text:
    name = Hemorrhage.ANY.display
    return Text(f"Immediate when {name} reaches {point.threshold:.2f} in the study: ").append_text(_rule(point))


def _reading(card: ModelCard) -> str:
    """How slices become a study."""
    rule = f"the mean of the highest {card.study_rule.extent_mm:g} mm of slices"
    if card.sequence is None:
        return f"Slices are scored one by one; the study's score is {rule}."
    study = "a network's own" if card.sequence.study_scores == "sequence" else rule
    return f"Slices are scored beside all others of their series; the study's score is {study}."


def _about(scores: ScoreTable) -> Text:
    counted = f"{scores.n_images} slices of {scores.n_patients} patients, scored by {scores.level}."
    return Text(f"{printable(scores.description)}\n{counted}", style="dim")


def _scores(scores: ScoreTable) -> Table:
    table = _grid("Label", "AUROC (95%)", "Average precision", "Calibration\nerror", "Positive")
    for label, score in scores.labels.items():
        table.add_row(label.display, *_score_cells(score))
    return table


def _score_cells(score: LabelScore) -> tuple[Text, ...]:
    positive = Text(f"{score.n_positive} ({score.n_positive_patients})")
    calibration = "-" if score.ece is None else f"{score.ece.value:.3f}"
    estimates = [Text(_estimate(score.auroc)), Text(_estimate(score.average_precision)), Text(calibration)]
    if score.auroc is None and score.reason:
        estimates[0] = Text(printable(score.reason), style="dim")
    return (*estimates, positive)


def _estimate(estimate: Estimate | None) -> str:
    if estimate is None:
        return "-"
    if estimate.low is None or estimate.high is None:
        return f"{estimate.value:.3f}"
    return f"{estimate.value:.3f} ({estimate.low:.3f}-{estimate.high:.3f})"


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
