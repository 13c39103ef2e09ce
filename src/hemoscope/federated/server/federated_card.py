"""The card of a federated model, fitted on the histograms that its sites sent: nobody saw their rows.

A federation on one split: calibration and operating points are fitted on the sites' validation parts, and the scores
that the card reports are those of their test parts, by exactly these weights. On folds: all folds' histograms together,
each by networks that never saw those patients; the calibration error is cross-fitted by fold if sites
reported each fold, and else is that of a calibration fitted on the same scores.

What a card of local training has and this one lacks: average precision, slope and other scores of calibration, held-out
performance of the operating points (no patient's row can be left out), and the rule that *any* is at least every type
while thresholds are chosen and scores are computed (a histogram of one label knows nothing of another).
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hemoscope.errors import FederationError
from hemoscope.evaluation.established import established
from hemoscope.evaluation.intervals import Interval
from hemoscope.federated.exchange.histograms import ScoreHistograms, parse_histograms
from hemoscope.federated.exchange.pooled import PooledScores, pool
from hemoscope.federated.exchange.reliability import calibration_error, reliability_bins
from hemoscope.inference.calibration import AnyCalibration, StudyRule
from hemoscope.inference.card import Estimate, LabelScore, ModelCard, ScoreTable
from hemoscope.labels import Hemorrhage, PerLabel
from hemoscope.training.fitted_card import Origin, assembled
from hemoscope.training.fitted_levels import RAW, fit_calibration
from hemoscope.training.fitted_settings import NO_VALIDATION, Fit, fit, nothing_fitted
from hemoscope.training.run_scores import SliceAndStudyScores

HISTOGRAMS = "histograms.json"
_SETS, _LEVELS = ("score", "validation"), {"slices": "slice", "studies": "patient"}
_SCORE_AGAIN = "Train this part again, or go on with it: hemoscope federated run ... --resume"


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteHistograms:
    """One set of images, as each site reported it: by slice and by study, in the same order of sites."""

    slices: tuple[ScoreHistograms, ...]
    studies: tuple[ScoreHistograms, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PartHistograms:
    """What the sites reported of one part: its test images, and its validation images if it has any."""

    score: SiteHistograms
    validation: SiteHistograms


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Level:
    """What is reported at one level: all rows; and the same in parts, each with calibrations that never saw it."""

    whole: PooledScores
    parts: tuple[tuple[PooledScores, PerLabel[AnyCalibration]], ...]


def read_histograms(part_folder: Path) -> PartHistograms:
    """Read what the server kept of one part's scores.

    Raises:
        FederationError: the file is not there, or is not what a server writes.
    """
    name = f"{part_folder.name}/{HISTOGRAMS}"
    try:
        data = json.loads((part_folder / HISTOGRAMS).read_text())
    except (OSError, ValueError, RecursionError) as error:
        reason = error.strerror if isinstance(error, OSError) else "no JSON"
        msg = f"{name} does not say how the sites' images were scored ({reason}). {_SCORE_AGAIN}"
        raise FederationError(msg) from error
    if not isinstance(data, dict) or set(data) != set(_SETS):
        msg = f"{name} must have the keys {' and '.join(_SETS)}. {_SCORE_AGAIN}"
        raise FederationError(msg)
    score, validation = (_read_set(data[of], where=f"{name}: {of}") for of in _SETS)
    return PartHistograms(score=score, validation=validation)


def federated_split_card(origin: Origin, part: PartHistograms, rule: StudyRule, *, version: str) -> ModelCard:
    """The card of a federation on one split: fitted on the validation parts of its sites, scored on their test parts.

    Raises:
        FederationError: no site reported its test part.
    """
    fitted_on = _levels([part.validation]) if part.validation.slices else None
    found = nothing_fitted(NO_VALIDATION) if fitted_on is None else _fit(fitted_on)
    slices, studies = (level.whole for level in _levels([part.score]))
    levels = (
        _Level(whole=slices, parts=((slices, found.calibration.slice),)),
        _Level(whole=studies, parts=((studies, found.calibration.study),)),
    )
    how = "The test part of each site, scored by these weights. Calibration is fitted on the validation parts."
    card = _card(origin, found, levels, rule, version=version, name="test parts", how=how)
    return card if fitted_on is None else _with_prevalence(card, fitted_on)


def federated_folds_card(
    origin: Origin, folds: Sequence[SiteHistograms], rule: StudyRule, *, version: str
) -> ModelCard:
    """The card of a federation on folds: fitted and scored on all folds, its calibration error cross-fitted by fold.

    Args:
        origin: of the model.
        folds: what the sites reported of each fold; or one entry for all folds together, which cannot be cross-fitted.
        rule: of studies.
        version: of the model.

    Raises:
        FederationError: no site reported any fold.
    """
    levels, crossed = _levels(folds), "Calibration is cross-fitted by fold."
    if len(folds) == 1:
        found = _fit(levels)
        fitted = (found.calibration.slice, found.calibration.study)
        slices, studies = (
            _Level(whole=level.whole, parts=((level.whole, calibration),))
            for level, calibration in zip(levels, fitted, strict=True)
        )
        levels = (slices, studies)
        crossed = "Calibration is fitted on these same scores, so its error flatters."
    how = (
        "Folds by patient at each site: every patient is scored once, by a network that the sites trained on the other "
        f"folds. It describes the recipe, not these exact weights. {crossed}"
    )
    card = _card(origin, _fit(levels), levels, rule, version=version, name="out of fold", how=how)
    return _with_prevalence(card, levels)


def _read_set(value: Any, *, where: str) -> SiteHistograms:
    if not isinstance(value, list) or not all(isinstance(site, dict) and set(site) == set(_LEVELS) for site in value):
        msg = f"{where} is no list of sites with {' and '.join(_LEVELS)}. {_SCORE_AGAIN}"
        raise FederationError(msg)
    slices, studies = (tuple(parse_histograms(json.dumps(site[name])) for site in value) for name in _LEVELS)
    wrong = {found.level for found in slices} - {"slice"} | {found.level for found in studies} - {"patient"}
    if wrong:
        msg = f"{where} holds slices for studies, or the other way round. {_SCORE_AGAIN}"
        raise FederationError(msg)
    return SiteHistograms(slices=slices, studies=studies)


def _levels(folds: Sequence[SiteHistograms]) -> tuple[_Level, _Level]:
    """Slices and studies over all folds; each fold with a calibration fitted on the others, where there are others."""
    reported = [fold for fold in folds if fold.slices]
    if not reported:
        msg = f"no site reported how its images were scored, so a card would claim nothing. {_SCORE_AGAIN}"
        raise FederationError(msg)
    return _level([fold.slices for fold in reported]), _level([fold.studies for fold in reported])


def _level(folds: Sequence[Sequence[ScoreHistograms]]) -> _Level:
    def fitted_without(number: int) -> PerLabel[AnyCalibration]:
        others = [site for other, fold in enumerate(folds) if other != number for site in fold]
        return fit_calibration(pool(others).made_rows()).calibration if others else PerLabel.build(lambda _: RAW)

    return _Level(
        whole=pool([site for fold in folds for site in fold]),
        parts=tuple((pool(fold), fitted_without(number)) for number, fold in enumerate(folds)),
    )


def _fit(levels: tuple[_Level, _Level]) -> Fit:
    slices, studies = (level.whole.made_rows() for level in levels)
    supported = PerLabel.build(lambda label: all(_supported(level.whole, label) for level in levels))
    return fit(SliceAndStudyScores(slices=slices, studies=studies), supported)


def _supported(whole: PooledScores, label: Hemorrhage) -> bool:
    """Whether the histograms establish a label; patients are the least that there can be."""
    return established(
        whole.interval(label),
        positive_patients=whole.positive[label].patients,
        negative_patients=whole.negative[label].patients,
    )


def _card(
    origin: Origin,
    found: Fit,
    levels: tuple[_Level, _Level],
    rule: StudyRule,
    *,
    version: str,
    name: str,
    how: str,
) -> ModelCard:
    slices, studies = (level.whole for level in levels)
    tables = tuple(
        _table(
            level, name=f"{origin.dataset.name}, {name}, by {word}", description=f"{how} {_of_histograms(level.whole)}"
        )
        for level, word in zip(levels, ("slice", "study"), strict=True)
    )
    card = assembled(origin, found, rule, version=version, scores=tables)
    return replace(card, limits_of_use=(*card.limits_of_use, *_limits(origin, slices, studies)))


def _with_prevalence(card: ModelCard, fitted_on: tuple[_Level, _Level]) -> ModelCard:
    """Add a limit of use if calibration was fitted at a share of positives that is not that of all sites."""
    lines = [line for level in fitted_on if (line := _shifted_prevalence(level.whole))]
    return replace(card, limits_of_use=(*card.limits_of_use, *lines))


def _shifted_prevalence(pooled: PooledScores) -> str:
    """State the share of positives that calibration learned, and that of all sites; empty if nothing is withheld."""
    found = {label: pooled.prevalence(label) for label in Hemorrhage}
    shares = [
        f"{label.display.lower()} {share.reported:.2f} ({share.low:.2f} to {share.high:.2f}, {share.withheld} withheld)"
        for label, share in found.items()
        if share is not None and share.withheld
    ]
    if not shares:
        return ""
    word = "slice" if pooled.level == "slice" else "study"
    return (
        f"By {word}, calibration was fitted at the share of positives that sites report. In brackets, the share at all "
        "sites if each report that withholds a label holds at least one positive, but too few to report them: "
        f"{'; '.join(shares)}. Probabilities are off by the difference; calibrate locally."
    )


def _table(level: _Level, *, name: str, description: str) -> ScoreTable:
    whole = level.whole
    return ScoreTable(
        name=name,
        description=description,
        level=whole.level,
        n_images=whole.rows,
        n_patients=whole.patients,
        labels=PerLabel.build(lambda label: _score(level, label)),
    )


def _score(level: _Level, label: Hemorrhage) -> LabelScore:
    whole = level.whole
    bins = reliability_bins([(pooled, calibrations[label]) for pooled, calibrations in level.parts], label)
    error = calibration_error(bins)
    auroc = whole.interval(label)
    return LabelScore(
        auroc=None if auroc is None else _estimate(auroc),
        average_precision=None,
        ece=None if error is None or auroc is None else Estimate(value=round(error, 4), low=None, high=None),
        n_positive=whole.positive[label].rows,
        n_positive_patients=whole.positive_patients(label),
        reason=None if auroc is not None else _why_unscored(whole, label),
        n_negative=whole.negative[label].rows,
        n_negative_patients=whole.negative[label].patients,
    )


def _estimate(measured: Interval) -> Estimate:
    return Estimate(value=round(measured.value, 4), low=round(measured.low, 4), high=round(measured.high, 4))


def _why_unscored(pooled: PooledScores, label: Hemorrhage) -> str:
    if not pooled.reported[label]:
        return f"no site has {pooled.least_cell} rows of both classes that it may report"
    return f"of those reported, none is {'negative' if pooled.positive[label].rows else 'positive'}"


def _stated(pooled: PooledScores) -> str:
    """The largest stated error of an AUROC of this level."""
    found = [bounds.error for bounds in map(pooled.auroc, Hemorrhage) if bounds is not None]
    return f"AUROCs are off by at most {max(found):.3f}" if found else "no AUROC can be computed"


def _of_histograms(pooled: PooledScores) -> str:
    """For a reader of the table: what its numbers are made of."""
    how_many = "as if each patient gave one slice" if pooled.level == "slice" else "of patients"
    return (
        f"From histograms in cells of at least {pooled.least_cell} rows, no row was seen: "
        f"{_stated(pooled)}. Intervals are drawn {how_many} and include that error: expect them to be wide."
    )


def _limits(origin: Origin, slices: PooledScores, studies: PooledScores) -> tuple[str, ...]:
    """What a reader must know of scores that nobody saw the rows of."""
    record = origin.federation
    private = record is not None and record.epsilon is not None
    least = slices.least_cell
    small = (
        f"A site reports nothing of a label with 1 to {least - 1} rows, or one patient, in a class: scores are of "
        "the other sites, and numbers of patients, 0 among them, are the least that there can be."
    )
    unprotected = "Epsilon counts the updates that made these weights, for whole sites: no histogram, no other part."
    lines = (
        "Scores, calibration and thresholds come from histograms, as each site states them, not from rows. By slice, "
        f"{_stated(slices)}; by study, {_stated(studies)}.",
        small if least > 1 else "",
        "Thresholds were chosen label by label on rows spread evenly over their cells. Their sensitivity and "
        "specificity are in sample, on the rows that they were chosen on, and off by as much as one cell holds: expect "
        "lower values.",
        "Each label is scored alone: any hemorrhage is served as at least every established type, and can flag more "
        "studies than its scores state.",
        "Each site knows which of its patients were held out; nobody else does.",
        unprotected if private else "",
    )
    return tuple(line for line in lines if line)
