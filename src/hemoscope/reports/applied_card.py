"""A model's card in the shape of CHAI's Applied Model Card (version 0.2): what goes into each of its fields.

Every field comes from ``card.json``. One that the card does not answer says so, and why. ``applied_card_pages`` writes
the result as Markdown or HTML.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from hemoscope.inference.calibration import OperatingPoint, Proportion, Stratum
from hemoscope.inference.card import Estimate, ModelCard, ScoreTable
from hemoscope.inference.card_statements import Statements
from hemoscope.labels import Hemorrhage
from hemoscope.reports.card_table import MEANING, measured_on, rates, unsure_lines

_NO_STATEMENTS = "this card is of an earlier version and has no statements"
_NO_GALLERY = "The card has no error gallery: it is of an earlier version, or the places of its slices are unknown."


@dataclass(frozen=True, slots=True, kw_only=True)
class CardTable:
    """A table with its caption; the first cell of each row names it."""

    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class CardField:
    """A field: paragraphs, a list and tables; or ``missing``, why it is not stated."""

    name: str
    paragraphs: tuple[str, ...] = ()
    items: tuple[str, ...] = ()
    tables: tuple[CardTable, ...] = ()
    missing: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CardSection:
    """A section with its fields."""

    name: str
    fields: tuple[CardField, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class AppliedCard:
    """The whole card; ``sha256`` identifies the bundle."""

    title: str
    disclaimer: str
    sha256: str
    sections: tuple[CardSection, ...]


def applied_card(card: ModelCard, sha256: str) -> AppliedCard:
    """Compose the card."""
    words = _Words(card.statements)
    sections = (
        ("Release information", (*_release(card, words),)),
        ("Model summary", (*_summary(card, words),)),
        ("Uses and directions", (*_uses(words),)),
        ("Warnings", (*_warnings(card, words),)),
        ("Trust ingredients: AI system facts", (*_facts(card, words),)),
        ("Trust ingredients: transparency information", (*_transparency(words),)),
        ("Key metrics: usefulness, usability and efficacy", (*_usefulness(card, words),)),
        ("Key metrics: fairness and equity", (*_fairness(card, words),)),
        ("Key metrics: safety and reliability", (*_safety(card, words),)),
        ("Resources", (*_resources(words),)),
    )
    return AppliedCard(
        title=f"{card.name} {card.version}",
        disclaimer=card.disclaimer,
        sha256=sha256,
        sections=tuple(CardSection(name=name, fields=fields) for name, fields in sections),
    )


@dataclass(frozen=True, slots=True)
class _Words:
    statements: Statements | None

    def field(self, name: str, key: str, *more: str) -> CardField:
        """Return a field of one statement and of what the card says besides."""
        found = None if self.statements is None else getattr(self.statements, key)
        paragraphs = tuple(text for text in (found, *more) if text)
        if paragraphs:
            return CardField(name=name, paragraphs=paragraphs)
        return CardField(name=name, missing=_NO_STATEMENTS if self.statements is None else self.statements.reason(key))


def _release(card: ModelCard, words: _Words) -> Iterator[CardField]:
    yield CardField(name="Model name", paragraphs=(card.name,))
    yield words.field("Model developer", "developer")
    yield words.field("Developer contact", "contact")
    yield words.field("Release stage", "release_stage")
    yield words.field("Release date", "release_date")
    yield CardField(name="Release version", paragraphs=(card.version,))
    yield words.field("Availability", "availability")
    yield words.field("Compatibility with health records", "compatibility")
    yield words.field("Regulatory approval", "regulatory_approval")


def _summary(card: ModelCard, words: _Words) -> Iterator[CardField]:
    if card.description:
        yield CardField(name="Summary", paragraphs=(card.description,))
    else:
        yield CardField(name="Summary", missing="the card describes nothing")
    yield words.field("Keywords", "keywords")


def _uses(words: _Words) -> Iterator[CardField]:
    yield words.field("Intended use and workflow", "intended_use")
    yield words.field("Primary intended users", "primary_users")
    yield words.field("How to use", "how_to_use")
    yield words.field("Targeted patient population", "population")
    yield words.field("Cautioned out-of-scope settings and use cases", "out_of_scope")


def _warnings(card: ModelCard, words: _Words) -> Iterator[CardField]:
    if card.limits_of_use:
        yield CardField(name="Known risks and limitations", items=card.limits_of_use)
    else:
        yield CardField(name="Known risks and limitations", missing="the card names no limits of use")
    yield words.field("Known biases or ethical considerations", "biases")
    yield words.field("Clinical risk level", "risk_level")


def _facts(card: ModelCard, words: _Words) -> Iterator[CardField]:
    yield words.field("Outcomes and outputs", "outputs")
    yield words.field("Model type", "model_type")
    yield words.field("Foundation models", "foundation_models")
    yield words.field("Input data source", "input_source")
    size = card.preprocessing.size
    yield CardField(
        name="Output and input data types",
        paragraphs=(
            "Input: axial slices of one series of a head CT in Hounsfield units. Each slice becomes "
            f"{card.preprocessing.channels} windowed channels of {size} x {size} pixels, cropped by the rule "
            f"{card.preprocessing.crop}.",
            "Output: for each slice and the study, six calibrated probabilities and thresholds; a map of each label.",
        ),
    )
    data = tuple(
        f"{one.name} {one.version}, {one.license}. {f'DOI {one.doi}. ' if one.doi else ''}{one.attribution}. "
        f"Changes: {one.changes}."
        for one in card.training_data
    )
    field = words.field("Development data characterization", "development_data", *data)
    tables = tuple(map(_counts, card.scores))
    yield replace(field, tables=tables, missing=None if tables else field.missing)
    yield words.field("Bias mitigation approaches", "bias_mitigation")
    yield words.field("Ongoing maintenance", "maintenance")
    yield words.field("Security and compliance environment", "security")
    yield words.field("Transparency, intelligibility and accountability", "transparency")


def _transparency(words: _Words) -> Iterator[CardField]:
    yield words.field("Funding source of the technical implementation", "funding")
    yield words.field("Third-party information", "third_parties")
    yield words.field("Stakeholders consulted during design", "stakeholders")


def _usefulness(card: ModelCard, words: _Words) -> Iterator[CardField]:
    yield words.field("Goal of metrics", "usefulness_goal")
    if card.scores:
        yield CardField(name="Results", tables=(*map(_ranking, card.scores),), paragraphs=(MEANING,))
    else:
        yield CardField(name="Results", missing="the card has no scores")
    named: dict[bool, list[str]] = {True: [], False: []}
    for label, fine in card.established.items():
        named[fine].append(label.display)
    lines = []
    if named[True]:
        lines.append(f"Established, so it can raise findings: {', '.join(named[True])}.")
    if named[False]:
        lines.append(f"Not established, shown without findings: {', '.join(named[False])}.")
    yield CardField(name="Interpretation", paragraphs=tuple(lines))
    yield from _tests(card)


def _fairness(card: ModelCard, words: _Words) -> Iterator[CardField]:
    yield words.field("Goal of metrics", "fairness_goal")
    tables = tuple(
        CardTable(
            caption=f"{table.name}: slices flagged where any hemorrhage has specificity {table.specificity:g}",
            columns=("Slices", "Found, of those with hemorrhage", "Flagged, of the others"),
            rows=tuple(
                (f"{one.kind}: {one.name}", _share(one.found), _share(one.false_alarms)) for one in table.strata
            ),
        )
        for table in card.strata or ()
    )
    if not tables:
        yield CardField(name="Results", missing="no strata were measured: sizes, places and ages are unknown")
        yield CardField(name="Interpretation", missing="no strata were measured")
    else:
        yield CardField(name="Results", tables=tables)
        strata = [one for table in card.strata or () for one in table.strata if one.kind != "slices"]
        yield CardField(name="Interpretation", paragraphs=(*_extremes(strata), _NO_GROUPS))
    yield from _tests(card)


_NO_GROUPS = "Sex, ethnicity, scanner and hospital were not examined."


def _extremes(strata: list[Stratum]) -> Iterator[str]:
    """Name the stratum of the fewest finds, and that of the most false alarms."""
    found = [(one.found.value, one) for one in strata if one.found is not None]
    alarms = [(one.false_alarms.value, one) for one in strata if one.false_alarms is not None]
    if found:
        _, one = min(found, key=lambda pair: pair[0])
        yield f"Found least often: {one.kind}, {one.name}: {_share(one.found)}."
    if alarms:
        _, one = max(alarms, key=lambda pair: pair[0])
        yield f"Flagged falsely most often: {one.kind}, {one.name}: {_share(one.false_alarms)}."


def _safety(card: ModelCard, words: _Words) -> Iterator[CardField]:
    yield words.field("Goal of metrics", "safety_goal")
    points = card.operating_points
    levels = (("study", points.study), ("slice", points.slice))
    tables = [
        CardTable(
            caption=f"Operating points of a {level}",
            columns=("Label", "Threshold", "Sensitivity", "Specificity", "Precision", "Rule"),
            rows=(
                *(_point(label.display, point) for label, point in table.items()),
                *([_point("Any hemorrhage, immediate", points.urgent)] if level == "study" else []),
            ),
        )
        for level, table in levels
    ]
    tables += [*map(_calibration, card.scores), *_gallery(card)]
    abstention = tuple(unsure_lines(card.unsure)) or ("No study is called unsure: the card has no rule for it.",)
    missing = () if card.errors is not None else (_NO_GALLERY,)
    yield CardField(name="Results", paragraphs=(measured_on(card), *abstention, *missing), tables=tuple(tables))
    yield CardField(name="Interpretation", paragraphs=(*_missed(card),))
    yield from _tests(card)


def _missed(card: ModelCard) -> Iterator[str]:
    """Say in counts how many studies are missed and falsely flagged."""
    found = card.operating_points.study[Hemorrhage.ANY].performance
    if found is None or found.sensitivity is None or found.specificity is None:
        yield "How many studies are missed or falsely flagged was not measured on other patients."
    else:
        missed, flagged = (one.rows - one.hits for one in (found.sensitivity, found.specificity))
        yield (
            f"Missed: {missed} of {found.sensitivity.rows} studies with hemorrhage. Flagged: {flagged} of "
            f"{found.specificity.rows} without."
        )
    rule = card.unsure
    if rule is not None and rule.used.performance is not None:
        yield f"Neither excluded nor called (unsure): {_share(rule.used.performance.unsure)} of the studies."
    yield "Probabilities hold at the prevalence of the data that they were fitted on; calibrate locally."


def _gallery(card: ModelCard) -> Iterator[CardTable]:
    """The worst errors; pictures of them are made from the data (``hemoscope evaluate --gallery``)."""
    if card.errors:
        yield CardTable(
            caption="Error gallery: the worst decisions about any hemorrhage on held-out patients, at most one a "
            "patient (hemoscope evaluate draws such errors with their heat maps)",
            columns=("Error", "Case", "Probability", "Types", "Strata"),
            rows=tuple(
                (
                    f"{one.level}, {one.kind}",
                    one.case or "not named",
                    f"{one.probability:.3f}",
                    ", ".join(one.types) or "-",
                    ", ".join(one.strata) or "-",
                )
                for one in card.errors
            ),
        )


def _tests(card: ModelCard) -> Iterator[CardField]:
    """How the figures were measured: the same for all three metrics."""
    names = [one.name for one in card.scores]
    yield CardField(
        name="Test type",
        paragraphs=("Retrospective, on stored scans and their labels; no reader study and no prospective test.",),
    )
    if not names:
        for name in ("Testing data description", "Validation process and justification"):
            yield CardField(name=name, missing="the card has no scores")
        return
    data = tuple(
        f"{one.name}: {one.n_images:,} {'slices' if one.level == 'slice' else 'studies'} of {one.n_patients} patients."
        for one in card.scores
    )
    yield CardField(name="Testing data description", items=data)
    about = dict.fromkeys(one.description for one in card.scores)
    yield CardField(name="Validation process and justification", items=tuple(about))


def _resources(words: _Words) -> Iterator[CardField]:
    yield words.field("Evaluation references", "evaluation_references")
    yield words.field("Clinical trial", "clinical_trial")
    yield words.field("Peer-reviewed publications", "publications")
    yield words.field("Reimbursement status", "reimbursement")
    yield words.field("Patient consent or disclosure", "consent")


def _counts(scores: ScoreTable) -> CardTable:
    unit = "slices" if scores.level == "slice" else "studies"
    return CardTable(
        caption=f"{scores.name}: {scores.n_images:,} {unit} of {scores.n_patients} patients",
        columns=("Label", f"With it, {unit} (patients)", f"Without it, {unit} (patients)"),
        rows=tuple(
            (
                label.display,
                f"{one.n_positive} ({one.n_positive_patients})",
                "-" if one.n_negative is None else f"{one.n_negative} ({one.n_negative_patients})",
            )
            for label, one in scores.labels.items()
        ),
    )


def _ranking(scores: ScoreTable) -> CardTable:
    return CardTable(
        caption=scores.name,
        columns=("Label", "AUROC", "Average precision"),
        rows=tuple(
            (
                label.display,
                _estimate(one.auroc) if one.auroc is not None or not one.reason else one.reason,
                _estimate(one.average_precision),
            )
            for label, one in scores.labels.items()
        ),
    )


def _calibration(scores: ScoreTable) -> CardTable:
    return CardTable(
        caption=f"Calibration, {scores.name}",
        columns=("Label", "Slope", "Intercept", "Observed/expected", "Calibration error (if calibrated)"),
        rows=tuple(
            (
                label.display,
                _estimate(one.slope, 2),
                _estimate(one.intercept, 2),
                _estimate(one.observed_expected, 2),
                "-" if one.ece is None else f"{one.ece.value:.3f} ({_value(one.ece_if_calibrated)})",
            )
            for label, one in scores.labels.items()
        ),
    )


def _point(name: str, point: OperatingPoint) -> tuple[str, ...]:
    found = point.performance
    shares: tuple[str, ...] = (*rates(point), "-")  # in sample, with an asterisk
    if found is not None:
        shares = tuple(_share(one) for one in (found.sensitivity, found.specificity, found.precision))
    return (name, f"{point.threshold:.3f}", *shares, point.rule)


def _share(found: Proportion | None) -> str:
    if found is None:
        return "-"
    return f"{found.value:.2f} ({found.low:.2f} to {found.high:.2f}), {found.hits} of {found.rows}"


def _estimate(found: Estimate | None, digits: int = 3) -> str:
    if found is None:
        return "-"
    if found.low is None or found.high is None:
        return f"{found.value:.{digits}f}"
    return f"{found.value:.{digits}f} ({found.low:.{digits}f} to {found.high:.{digits}f})"


def _value(found: Estimate | None) -> str:
    return "-" if found is None else f"{found.value:.3f}"
