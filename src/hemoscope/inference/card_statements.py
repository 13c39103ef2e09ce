"""What a card states in words beside its figures, and its error gallery.

The fields of :class:`Statements` are those of the Applied Model Card of the Coalition for Health AI (CHAI), version
0.2, that no other key of the card answers. ``reports.applied_card`` puts both together.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from types import MappingProxyType
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class CardError:
    """One of the worst wrong decisions about ``any`` on held-out patients, at most one a patient, level and kind.

    Attributes:
        level: whether the slice or its study was decided wrongly.
        kind: ``missed`` (false negative) or ``false alarm`` (false positive).
        case: the image or patient as the dataset names it; None unless the dataset is published.
        probability: of ``any``, by the settings of the other folds or of the card.
        types: the types that the slice, or a slice of the study, shows.
        strata: of the slice; none of a study.
    """

    level: Literal["slice", "study"]
    kind: Literal["missed", "false alarm"]
    case: str | None
    probability: float
    types: tuple[str, ...]
    strata: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Statements:
    """Statements about a model; one that is None is not stated, and ``not_stated`` may say why, by its name.

    ``release_date`` is that of the export, as YYYY-MM-DD. The three goals are what was wanted of the key metrics.
    """

    format: Literal["hemoscope.statements/1"] = "hemoscope.statements/1"
    developer: str | None = None
    contact: str | None = None
    release_stage: str | None = None
    release_date: str | None = None
    availability: str | None = None
    compatibility: str | None = None
    regulatory_approval: str | None = None
    keywords: str | None = None
    intended_use: str | None = None
    primary_users: str | None = None
    how_to_use: str | None = None
    population: str | None = None
    out_of_scope: str | None = None
    biases: str | None = None
    risk_level: str | None = None
    outputs: str | None = None
    model_type: str | None = None
    foundation_models: str | None = None
    input_source: str | None = None
    development_data: str | None = None
    bias_mitigation: str | None = None
    maintenance: str | None = None
    security: str | None = None
    transparency: str | None = None
    funding: str | None = None
    third_parties: str | None = None
    stakeholders: str | None = None
    usefulness_goal: str | None = None
    fairness_goal: str | None = None
    safety_goal: str | None = None
    evaluation_references: str | None = None
    clinical_trial: str | None = None
    publications: str | None = None
    reimbursement: str | None = None
    consent: str | None = None
    not_stated: Mapping[str, str] | None = None

    def __post_init__(self) -> None:
        """Reject a reason for a statement that is made or that does not exist; make the reasons read-only."""
        reasons = self.not_stated or {}
        made = [name for name in reasons if name not in STATEMENTS or getattr(self, name) is not None]
        if made:
            msg = f"not_stated gives a reason for {made[0]}, which is stated or is no statement"
            raise ValueError(msg)
        object.__setattr__(self, "not_stated", MappingProxyType(dict(reasons)))

    def reason(self, name: str) -> str:
        """Return why a statement is missing."""
        return (self.not_stated or {}).get(name, "whoever exported this model did not say it")


STATEMENTS = tuple(field.name for field in fields(Statements) if field.name not in {"format", "not_stated"})
