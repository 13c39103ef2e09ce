"""The slice rule of an exported model: chosen by AUROC, nested in all that the card states."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from hemoscope.evaluation.calibrate import group_folds
from hemoscope.evaluation.conformal import HIGH, LOW, UNSURE, fit_unsure
from hemoscope.inference.calibration import OperatingPoint, StudyRule, sigmoid
from hemoscope.inference.card import ModelCard, TrainingData
from hemoscope.inference.probabilities import StudyProbabilities, smoothed
from hemoscope.labels import Hemorrhage, PerLabel
from hemoscope.training.experiment import Experiment
from hemoscope.training.fitted_card import Origin, folds_card
from hemoscope.training.fitted_errors import MOST_ERRORS
from hemoscope.training.fitted_levels import cross_fit_level
from hemoscope.training.fitted_settings import established_labels, fit
from hemoscope.training.fitted_smoothing import WIDTHS_MM, smoothing_of
from hemoscope.training.held_out import cross_fitted
from hemoscope.training.run_scores import LevelScores, SliceAndStudyScores, SlicePlaces, study_scores

RULE = StudyRule()
PATIENTS, SLICES = 40, 16
DATASET = TrainingData(
    name="phantoms", version="1", doi="none", license="Apache-2.0", attribution="made here", changes="none"
)


def scored(*, noise: float = 2.0, seed: int = 0, assumed: bool = False) -> SliceAndStudyScores:
    """Every second patient bleeds over six slices; the noise of each slice is its own, so smoothing helps."""
    random = np.random.default_rng(seed)
    truth = np.zeros((PATIENTS, SLICES, 6))
    truth[::2, 5:11] = 1
    logits = (4 * truth - 3 + random.normal(0, noise, truth.shape)).reshape(-1, 6)
    names = tuple(f"p{number:02d}" for number in range(PATIENTS) for _ in range(SLICES))
    slices = LevelScores(logits=logits, truth=truth.reshape(-1, 6), patients=names)
    places = SlicePlaces(
        series=names,
        positions_mm=np.tile(5.0 * np.arange(SLICES), PATIENTS),
        assumed=np.full(len(names), assumed),
        outline_px=np.where(slices.truth[:, 0] == 1, 500.0, np.nan),
        age=np.repeat(np.arange(PATIENTS, dtype=float), SLICES),
        images=tuple(f"{name}-{slice_}" for slice_, name in enumerate(names)),
    )
    return SliceAndStudyScores(slices=slices, studies=study_scores(slices, RULE, series=names), places=places)


@pytest.fixture
def origin(tiny_experiment: Callable[..., Experiment]) -> Origin:
    return Origin(experiment=tiny_experiment(), dataset=DATASET, split=None, embedding_size=8)


@pytest.fixture
def card(origin: Origin) -> ModelCard:
    return folds_card(origin, scored(), RULE, version="1", more=())


def test_the_width_is_the_one_of_the_best_auroc(card: ModelCard) -> None:
    found = scored()
    smoothing = smoothing_of(found)
    assert smoothing is not None
    truth = found.slices.truth[:, 0]
    areas = {width: roc_auc_score(truth, smoothing.logits[width][:, 0]) for width in WIDTHS_MM}
    best = max(areas, key=areas.__getitem__)
    assert best is not None
    assert smoothing.width_mm() == best
    assert card.slice_rule is not None
    assert card.slice_rule.width_mm == best


def test_slices_of_one_series_are_smoothed_as_serving_smooths_them(card: ModelCard) -> None:
    found, rule = scored(), card.slice_rule
    smoothing = smoothing_of(found)
    assert smoothing is not None
    assert rule is not None
    rows = slice(SLICES, 2 * SLICES)
    positions = (5.0 * np.arange(SLICES)).tolist()
    assert np.allclose(smoothing.smoothed_by()[rows], smoothed(found.slices.logits[rows], positions, rule))
    served = StudyProbabilities.from_logits(found.slices.logits[rows], positions_mm=positions, card=card)
    point = card.operating_points.slice[Hemorrhage.ANY]
    assert rule.calibration is not None
    shown = rule.calibration[Hemorrhage.ANY].apply(smoothing.smoothed_by()[rows, 0])
    assert (served.slice_probabilities[:, 0] >= shown - 1e-12).all()  # raised to the types, never below
    assert point.rule == "f-beta 1"


def test_raw_scores_keep_their_calibration_and_the_study_its_rule(origin: Origin, card: ModelCard) -> None:
    plain = folds_card(origin, replace(scored(), places=None), RULE, version="1", more=())
    assert plain.slice_rule is None
    assert card.calibration == plain.calibration
    assert card.operating_points.study == plain.operating_points.study
    assert card.scores[1] == plain.scores[1]
    before, after = plain.scores[0].labels[Hemorrhage.ANY].auroc, card.scores[0].labels[Hemorrhage.ANY].auroc
    assert before is not None
    assert after is not None
    assert after.value > before.value


def test_where_smoothing_does_not_help_there_is_no_rule(origin: Origin) -> None:
    """Scores that rank perfectly: wider is not better, and of equal widths the narrowest is taken."""
    card = folds_card(origin, scored(noise=0.1), RULE, version="1", more=())
    assert card.slice_rule is None


def test_the_width_of_a_fold_is_chosen_on_the_other_folds() -> None:
    """One fold whose slices only a wide rule ranks: its own scores must not choose its width."""
    plain = scored(noise=0.1)
    patients = np.arange(PATIENTS).repeat(SLICES)
    fold = group_folds(plain.slices.truth[:, 0] == 1, patients, 5, seed=0) == 0
    found = scored(noise=0.1)
    found.slices.logits[fold] = scored(noise=8.0).slices.logits[fold]
    smoothing = smoothing_of(found)
    assert smoothing is not None
    assert smoothing.width_mm() is not None
    settings = fit(found, established_labels(found), smoothing)
    held_out = cross_fitted(found, settings, smoothing)
    assert held_out is not None
    assert np.array_equal(held_out.slices.logits[fold], found.slices.logits[fold])
    assert not np.allclose(held_out.slices.logits[~fold], found.slices.logits[~fold])


def test_the_card_says_where_positions_are_assumed(origin: Origin, card: ModelCard) -> None:
    assert not any("states no positions" in line for line in card.limits_of_use)
    assumed = folds_card(origin, scored(assumed=True), RULE, version="1", more=())
    assert any("phantoms states no positions" in line for line in assumed.limits_of_use)
    assert "smoothed along the head" in assumed.scores[0].description


def test_studies_are_unsure_by_quantiles_of_other_folds(card: ModelCard) -> None:
    assert card.unsure is not None
    found = card.unsure.used.performance
    assert found is not None
    assert found.method == "cross_fitted"
    assert (found.unsure.rows, found.not_low.rows, found.not_high.rows) == (PATIENTS, PATIENTS // 2, PATIENTS // 2)
    assert ModelCard.from_json(card.to_json()) == card


def test_the_card_says_that_slices_alone_are_decided_at_thresholds_of_smoothed_ones(
    origin: Origin, card: ModelCard
) -> None:
    def said(one: ModelCard) -> bool:
        return any(
            "decided at the same thresholds, which were not chosen for them" in line for line in one.limits_of_use
        )

    assert said(card)
    assert not said(folds_card(origin, scored(noise=0.1), RULE, version="1", more=()))


def test_the_card_says_where_only_some_series_state_no_positions(origin: Origin) -> None:
    found = scored()
    assert found.places is not None
    some = replace(found.places, assumed=np.arange(PATIENTS * SLICES) < SLICES)
    card = folds_card(origin, replace(found, places=some), RULE, version="1", more=())
    assert any("Some series of phantoms state no positions: their slices" in line for line in card.limits_of_use)


def test_without_a_rule_the_scores_of_the_card_are_not_smoothed_in_any_fold(origin: Origin) -> None:
    found = scored(noise=0.1)
    assert found.places is not None
    smoothing = smoothing_of(found)
    assert smoothing is not None
    with pytest.MonkeyPatch.context() as patch:
        # None is chosen on all rows, and a width on those of the other folds.
        patch.setattr(type(smoothing), "width_mm", lambda _, rows=None: None if rows is None else 7.5)
        card = folds_card(origin, found, RULE, version="1", more=())
    plain = folds_card(origin, replace(found, places=None), RULE, version="1", more=())
    assert card.slice_rule is None
    assert card.scores[0] == plain.scores[0]


def test_a_fold_with_too_few_studies_for_the_quantiles_excludes_nothing() -> None:
    """All ten studies of a class are enough for an alpha of .1, the eight of four folds are not."""
    truth = np.repeat([1.0, 0.0], 10)[:, None] * np.ones(6)
    names = tuple(f"p{number:02d}" for number in range(20))
    studies = LevelScores(logits=8 * truth - 4 + np.linspace(-1, 1, 20)[:, None], truth=truth, patients=names)
    raw = PerLabel.build(lambda _: OperatingPoint(threshold=0.5, rule="fixed"))
    shown = sigmoid(studies.logits[:, 0])
    unsure = fit_unsure(shown, truth[:, 0])
    assert unsure is not None
    assert set(unsure.used.of(shown)) == {LOW, HIGH}
    found = cross_fit_level(studies, raw, PerLabel.build(lambda _: True), raw["any"], unsure=unsure)
    assert found is not None
    assert [set(one) for one in found.sets] == [{UNSURE}]


def test_the_card_names_its_worst_errors_once_a_patient_and_only_of_published_data(origin: Origin) -> None:
    found = scored(noise=4.0)
    cards = [
        folds_card(replace(origin, dataset=replace(DATASET, doi=doi)), found, RULE, version="1", more=())
        for doi in ("", "10.1/x")
    ]
    assert all(cards[0].errors or ())
    assert {one.case for one in cards[0].errors or ()} == {None}
    named = [one for one in cards[1].errors or () if one.level == "slice"]
    truth = dict(zip(found.places.images if found.places else (), found.slices.truth[:, 0], strict=True))
    for kind, positive in (("missed", 1.0), ("false alarm", 0.0)):
        of_kind = [one for one in named if one.kind == kind]
        assert 1 <= len(of_kind) <= MOST_ERRORS
        assert {truth[one.case or ""] for one in of_kind} == {positive}
        assert len({(one.case or "").partition("-")[0] for one in of_kind}) == len(of_kind)
        shown = [one.probability for one in of_kind]
        assert shown == sorted(shown, reverse=kind == "false alarm")
        assert all("above" in one.strata or "lowest 40% of the head" in one.strata for one in of_kind)


def test_without_places_the_card_has_no_error_gallery(origin: Origin) -> None:
    assert folds_card(origin, replace(scored(), places=None), RULE, version="1", more=()).errors is None
