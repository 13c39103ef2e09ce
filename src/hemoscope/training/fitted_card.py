"""Fits the card of a trained model on the scores of its run.

A run on folds: every patient is scored once, by a network that was not trained on that patient. Calibration and
operating points are fitted on those scores; the reported calibration and performance of the operating points are
cross-fitted by patient, so that nothing is scored on its own fitting data. The scores describe the training recipe, not
the final network's exact weights.

A run on one split: calibration and operating points are fitted on the validation set, and the card reports the
scores of exactly these weights on the test set. The paper's split by slice has no validation set: then nothing is
fitted and no label is established.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from hemoscope.data.split import LEAK_WARNING
from hemoscope.evaluation.performance import Method
from hemoscope.evaluation.score_table import score_table
from hemoscope.evaluation.tuning import CrossFitted, LevelSettings
from hemoscope.inference.calibration import StudyRule, ThinSeriesRule, sigmoid
from hemoscope.inference.card import (
    FederationRecord,
    ModelCard,
    ScoreTable,
    SequenceRule,
    SplitRecord,
    TrainingData,
)
from hemoscope.inference.card_statements import Statements
from hemoscope.inference.probabilities import consistent
from hemoscope.labels import LABELS, Hemorrhage
from hemoscope.training.card_words import statements_of
from hemoscope.training.experiment import Experiment
from hemoscope.training.fitted_errors import strata, worst_errors
from hemoscope.training.fitted_settings import NO_VALIDATION, Fit, established_labels, fit, nothing_fitted, with_unsure
from hemoscope.training.fitted_smoothing import smoothing_of
from hemoscope.training.held_out import HeldOut, cross_fitted, on_test_set, settings_of, with_held_out_performance
from hemoscope.training.run_scores import LevelScores, SliceAndStudyScores
from hemoscope.version import DISCLAIMER, __version__

_Level = Literal["slice", "patient"]
# In descriptions.
SEVERAL_SEEDS = "networks of one recipe (seeds "
PUBLISHED = "10."  # a DOI
HALF_WEIGHTS = "Weights are stored in float16 and computed with in float32."
_SMOOTHED: dict[Method, str] = {
    "cross_fitted": "Slices are smoothed along the head by the width chosen on the other folds.",
    "test_set": "Slices are smoothed along the head.",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where a model came from.

    Attributes:
        experiment: of the run.
        dataset: it was trained on.
        split: of a run on one split.
        embedding_size: of the network.
        federation: if several sites trained its initial weights.
        seeds: of the networks that are averaged, if there are several.
        half_weights: whether the graph's weights are stored in float16.
        statements: of whoever exports it, by their names in ``card_statements``.
    """

    experiment: Experiment
    dataset: TrainingData
    split: SplitRecord | None
    embedding_size: int
    federation: FederationRecord | None = None
    seeds: tuple[int, ...] = ()
    half_weights: bool = False
    statements: Statements | None = None


def folds_card(
    origin: Origin, scored: SliceAndStudyScores, rule: StudyRule, *, version: str, more: Sequence[ScoreTable]
) -> ModelCard:
    """Return the card of a run on folds, fitted on its out-of-fold scores."""
    smoothing = smoothing_of(scored)
    found = with_unsure(fit(scored, established_labels(scored), smoothing), scored)
    held_out = cross_fitted(scored, found, None if found.slice_rule is None else smoothing)
    description = (
        "Patient-level folds: every patient is scored once, by a network trained with the same recipe on "
        "the other folds. It describes the recipe, not these exact weights. AUROC and average precision rank the "
        "probabilities as served; calibration scores are cross-fitted by patient."
    )
    tables = _tables(scored, found, held_out, name=f"{origin.dataset.name}, out of fold", description=description)
    found = with_held_out_performance(found, scored, held_out)
    found = replace(found, limits=(*found.limits, *_smoothing_limits(origin, scored, found)))
    card = assembled(origin, found, rule, version=version, scores=(*tables, *more))
    if held_out is None:
        return card
    shown = settings_of(found)[0].probabilities(held_out.slices.logits)[:, LABELS.index(Hemorrhage.ANY)]
    return replace(
        card,
        strata=strata(tables[0].name, scored, shown),
        errors=worst_errors(scored, held_out, named=origin.dataset.doi.startswith(PUBLISHED)),
    )


def _smoothing_limits(origin: Origin, scored: SliceAndStudyScores, found: Fit) -> list[str]:
    if found.slice_rule is None or scored.places is None:
        return []
    limits = [
        "Thresholds of slices were chosen on smoothed scores. Slices that are not mixed with others, such as single"
        " slices and those without positions, are decided at the same thresholds, which were not chosen for them."
    ]
    assumed = scored.places.assumed
    if assumed.any():
        name = origin.dataset.name
        stated = f"{name} states" if assumed.all() else f"Some series of {name} state"
        limits.append(
            f"Slice scores are smoothed along the head. {stated} no positions: {'its' if assumed.all() else 'their'}"
            " slices were taken as nominally spaced to choose the width, the calibration of smoothed scores and the"
            " thresholds of slices."
        )
    return limits


def split_card(
    origin: Origin,
    validation: SliceAndStudyScores | None,
    test: SliceAndStudyScores,
    rule: StudyRule,
    *,
    version: str,
    more: Sequence[ScoreTable],
) -> ModelCard:
    """Return the card of a run on one split: fitted on its validation set, if any, and scored on its test set."""
    assert origin.split is not None
    split = origin.split
    how = f"The test set of one split by {split.by} (share {split.test:g}, seed {split.seed}), scored by these weights."
    if split.by == "slice":
        how = f"{how} {LEAK_WARNING}. Probabilities are the network's own."
    else:
        how = f"{how} Calibration and thresholds are fitted on the validation set."
    found = nothing_fitted(NO_VALIDATION) if validation is None else _fit_on(validation)
    held_out = on_test_set(test, found)
    tables = _tables(test, found, held_out, name=f"{origin.dataset.name}, test set", description=how)
    if validation is not None:
        found = with_held_out_performance(found, test, held_out)
        found = replace(found, limits=(*found.limits, *_smoothing_limits(origin, validation, found)))
    return assembled(origin, found, rule, version=version, scores=(*tables, *more))


def _fit_on(validation: SliceAndStudyScores) -> Fit:
    return with_unsure(fit(validation, established_labels(validation), smoothing_of(validation)), validation)


def _tables(
    scored: SliceAndStudyScores, found: Fit, held_out: HeldOut | None, *, name: str, description: str
) -> tuple[ScoreTable, ScoreTable]:
    """Return the scores by slice and by study of probabilities as served.

    ``held_out`` has those of settings that were not fitted on these rows; None uses the network's own probabilities.
    """
    of_slices, of_studies = settings_of(found)
    slices, studies = (None, None) if held_out is None else (held_out.slices, held_out.studies)
    if slices is None:  # not smoothed either
        of_slices = replace(of_slices, calibration=found.calibration.slice)
    smoothed = "" if held_out is None or found.slice_rule is None else f" {_SMOOTHED[held_out.method]}"

    def table(scores: LevelScores, settings: LevelSettings, shown: CrossFitted | None, level: _Level) -> ScoreTable:
        # At study level a row is a series; a patient may have several.
        several = level == "patient" and len(set(scores.patients)) < len(scores.patients)
        own = consistent(sigmoid(scores.logits), found.established)
        return score_table(
            ranked=settings.probabilities(scores.logits if shown is None else shown.logits),
            probabilities=own if shown is None else shown.probabilities,
            truth=scores.truth,
            patients=scores.patients,
            name=f"{name}, by {'study' if several else level}",
            description=description + (smoothed if level == "slice" else ""),
            level=level,
        )

    return table(scored.slices, of_slices, slices, "slice"), table(scored.studies, of_studies, studies, "patient")


def assembled(
    origin: Origin, found: Fit, rule: StudyRule, *, version: str, scores: tuple[ScoreTable, ...]
) -> ModelCard:
    """Assemble the card; its ``files`` are filled in when the bundle is written."""
    experiment = origin.experiment
    sequence = experiment.sequence
    return ModelCard(
        name=f"hemoscope-{experiment.name}",
        version=version,
        preprocessing=experiment.reading_preprocessing,
        calibration=found.calibration,
        study_rule=rule,
        operating_points=found.points,
        established=found.established,
        training_data=(origin.dataset,),
        scores=scores,
        limits_of_use=_limits(origin, found),
        description=f"{experiment.description}. Trained with Hemoscope {__version__}. {_how_it_scores(origin)}",
        disclaimer=DISCLAIMER,
        files={},
        sequence=None
        if sequence is None
        else SequenceRule(embedding_size=origin.embedding_size, study_scores=sequence.study),
        split=origin.split,
        federation=origin.federation,
        thin_series=ThinSeriesRule(),
        slice_rule=found.slice_rule,
        unsure=found.unsure,
        statements=statements_of(experiment, origin.statements),
    )


def _how_it_scores(origin: Origin) -> str:
    mirrored = origin.experiment.reading.mirror
    looks = "a slice and its mirror image" if mirrored else "a slice"
    if origin.seeds:
        *seeds, last = map(str, origin.seeds)
        networks = f"{len(origin.seeds)} {SEVERAL_SEEDS}{', '.join(seeds)} and {last})"
        lines = [f"Scores are means over {networks}, of {looks}."]
    elif mirrored:
        lines = ["Scores are means over a slice and its mirror image."]
    else:
        lines = ["Every slice is scored once, without its mirror image."]
    if origin.half_weights:
        lines.append(HALF_WEIGHTS)
    return " ".join(lines)


def _limits(origin: Origin, found: Fit) -> tuple[str, ...]:
    unsupported = [label.display.lower() for label, fine in found.established.items() if not fine]
    held_out = origin.experiment.run.held_out
    lines = (
        "Research software. Not a medical device: not for diagnosis or treatment decisions.",
        f"Non-contrast axial head CT as in its training data ({origin.dataset.name}): expect lower scores elsewhere, "
        "and calibrate locally.",
        "Probabilities reflect the prevalence of the training data, which is far above that of clinical practice.",
        f"Not established, for display only: {', '.join(unsupported)}." if unsupported else "",
        *found.limits,
        f"{LEAK_WARNING}." if origin.split is not None and origin.split.by == "slice" else "",
        f"The final weights were not trained on {', '.join(held_out)}." if held_out else "",
        _of_one_site(origin.federation),
    )
    return tuple(line for line in lines if line)


def _of_one_site(federation: FederationRecord | None) -> str:
    if federation is None or not federation.personalised:
        return ""
    return f"Trained by {federation.sites} sites, then fine-tuned and scored on the patients of one of them."
