"""The card of a trained model: what is fitted on which data, and the reasons if nothing can be fitted."""

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import binomtest
from sklearn.metrics import roc_auc_score

from hemoscope.data.split import LEAK_WARNING
from hemoscope.inference.calibration import Calibration, StudyRule, sigmoid
from hemoscope.inference.card import ModelCard, SplitRecord, TrainingData
from hemoscope.inference.findings import Triage, present_labels, study_triage
from hemoscope.inference.probabilities import calibrated, consistent
from hemoscope.labels import LABELS, Hemorrhage, PerLabel
from hemoscope.training.experiment import Experiment
from hemoscope.training.fitted_card import Origin, folds_card, split_card
from hemoscope.training.fitted_settings import established_labels, fit
from hemoscope.training.held_out import cross_fitted, settings_of
from hemoscope.training.run_scores import LevelScores, SliceAndStudyScores, study_scores

RULE = StudyRule()
DATASET = TrainingData(
    name="phantoms", version="1", doi="none", license="Apache-2.0", attribution="made here", changes="none"
)
SPLIT = SplitRecord(dataset="phantoms", by="patient", seed=257, validation=0.1, test=0.2, images_sha256="0" * 64)
BY_SLICE = replace(SPLIT, by="slice", validation=0.0)
RAW = Calibration(scale=1.0, bias=0.0)


def scored(truth: NDArray[np.float64], *, seed: int = 1) -> SliceAndStudyScores:
    """Scores that rank well: ``truth`` (patients, slices, 6)."""
    patients, slices, _ = truth.shape
    flat = truth.reshape(-1, 6)
    logits = 4 * np.nan_to_num(flat) - 3 + np.random.default_rng(seed).normal(0, 0.8, flat.shape)
    names = tuple(f"p{number:02d}" for number in range(patients) for _ in range(slices))
    found = LevelScores(logits=logits, truth=flat, patients=names)
    return SliceAndStudyScores(slices=found, studies=study_scores(found, RULE, series=found.patients))


def bleeding(patients: int, *, without: tuple[Hemorrhage, ...] = (), slices: int = 5) -> NDArray[np.float64]:
    """Every second patient bleeds in the middle slices, with every type but those left out."""
    truth = np.zeros((patients, slices, 6))
    truth[::2, 1:4, :] = 1
    for label in without:
        truth[:, :, LABELS.index(label)] = 0
    return truth


@pytest.fixture
def origin(tiny_experiment: Callable[..., Experiment]) -> Origin:
    return Origin(experiment=tiny_experiment(), dataset=DATASET, split=None, embedding_size=8)


def thresholds(card: ModelCard) -> list[tuple[float, str]]:
    points = card.operating_points
    return [(point.threshold, point.rule) for point in (*points.slice.values, *points.study.values, points.urgent)]


def card_of(origin: Origin, truth: NDArray[np.float64]) -> ModelCard:
    return folds_card(origin, scored(truth), RULE, version="1", more=())


@pytest.mark.parametrize("positive", [0, 1])
def test_a_label_of_too_few_patients_is_not_fitted_and_the_card_states_it(origin: Origin, positive: int) -> None:
    truth = bleeding(32, without=(Hemorrhage.EPIDURAL,))
    truth[:positive, 2, LABELS.index(Hemorrhage.EPIDURAL)] = 1
    card = card_of(origin, truth)
    assert card.calibration.slice[Hemorrhage.EPIDURAL] == card.calibration.study[Hemorrhage.EPIDURAL] == RAW
    for points in (card.operating_points.slice, card.operating_points.study):
        point = points[Hemorrhage.EPIDURAL]
        assert point.threshold == math.nextafter(0.5, 1)
        own = "above 0.5 of the network's own probability, not fitted: "
        assert point.rule.startswith(f"{own}{positive} patient")
        assert point.sensitivity is None
    assert not card.established[Hemorrhage.EPIDURAL]
    assert card.established[Hemorrhage.ANY]
    line = next(line for line in card.limits_of_use if line.startswith("Epidural: neither calibrated"))
    assert f"{positive} patient" in line
    assert "needs 2" in line
    assert card.calibration.slice[Hemorrhage.SUBDURAL] != RAW
    assert ModelCard.from_json(card.to_json()) == card


def test_a_label_that_two_patients_have_is_fitted(origin: Origin) -> None:
    truth = bleeding(20, without=(Hemorrhage.EPIDURAL,))
    truth[:3, 2, LABELS.index(Hemorrhage.EPIDURAL)] = 1
    card = card_of(origin, truth)
    assert card.calibration.slice[Hemorrhage.EPIDURAL] != RAW
    assert not any("Epidural: neither" in line for line in card.limits_of_use)


def test_where_no_cut_is_precise_enough_no_study_is_urgent_and_the_limits_give_a_reason(origin: Origin) -> None:
    found = scored(bleeding(20))
    found.studies.logits[[1, 3]] = 50  # patients who do not bleed stand above the ten who do
    card = folds_card(origin, found, RULE, version="1", more=())
    assert card.operating_points.urgent.rule.startswith("never: no threshold reaches a precision of 0.9")
    assert any(line.startswith("No study is called urgent: no threshold reaches") for line in card.limits_of_use)
    certain = PerLabel.build(lambda _: 0.999999)
    fine = replace(card, established=PerLabel.build(lambda _: True))
    present = present_labels(certain, card.operating_points.study, fine.established)
    assert study_triage(certain, present, fine) is Triage.PROMPT


def test_data_without_any_bleed_still_give_a_card_that_claims_nothing(origin: Origin) -> None:
    card = card_of(origin, np.zeros((6, 4, 6)))
    assert not any(card.established.values)
    assert card.operating_points.urgent.rule.startswith("never: 0 patients with it")
    assert all(score.auroc is None and score.reason for table in card.scores for score in table.labels.values)


def test_unknown_labels_count_for_nothing(origin: Origin) -> None:
    """Unknown is not negative: the fit is that of the known rows alone."""
    truth = bleeding(24)
    truth[16:, :, 1:] = np.nan
    card, known = card_of(origin, truth), scored(truth)
    rows = np.isfinite(known.slices.truth[:, 5])
    fewer = LevelScores(
        logits=known.slices.logits[rows],
        truth=known.slices.truth[rows],
        patients=tuple(np.array(known.slices.patients)[rows]),
    )
    alone = folds_card(
        origin,
        SliceAndStudyScores(slices=fewer, studies=study_scores(fewer, RULE, series=fewer.patients)),
        RULE,
        version="1",
        more=(),
    )
    for label in LABELS[1:]:
        assert card.calibration.slice[label] == alone.calibration.slice[label]
        assert card.scores[0].labels[label].n_positive == 24
    assert card.calibration.slice[Hemorrhage.ANY] != alone.calibration.slice[Hemorrhage.ANY]


def test_a_split_by_patient_is_fitted_on_validation_and_reports_the_test(origin: Origin) -> None:
    validation, test = scored(bleeding(20), seed=1), scored(bleeding(12), seed=2)
    split = replace(origin, split=SPLIT)
    card = split_card(split, validation, test, RULE, version="1", more=())
    same = folds_card(origin, validation, RULE, version="1", more=())
    assert card.calibration == same.calibration
    assert thresholds(card) == thresholds(same)
    assert card.established == same.established
    assert card.split == SPLIT
    assert [(table.level, table.n_images, table.n_patients) for table in card.scores] == [
        ("slice", 60, 12),
        ("patient", 12, 12),
    ]
    assert "test set" in card.scores[0].name
    assert "fitted on the validation set" in card.scores[0].description
    assert not any("Split by slice" in line for line in card.limits_of_use)
    # The calibration error is that of what a user would see on the test set.
    found = consistent(calibrated(test.slices.logits, card.calibration.slice), card.established)
    ece = card.scores[0].labels[Hemorrhage.ANY].ece
    assert ece is not None
    assert 0 <= ece.value <= float(np.abs(found[:, 0] - test.slices.truth[:, 0]).mean()) + 1e-4


def test_a_split_by_slice_claims_nothing_and_carries_the_warning(origin: Origin) -> None:
    """The paper's: no validation set, so raw probabilities, positive above 0.5, and scores that leak."""
    test = scored(bleeding(12), seed=2)
    card = split_card(replace(origin, split=BY_SLICE), None, test, RULE, version="1", more=())
    assert set(card.calibration.slice.values) == set(card.calibration.study.values) == {RAW}
    assert not any(card.established.values)
    assert all(LEAK_WARNING in table.description for table in card.scores)
    assert f"{LEAK_WARNING}." in card.limits_of_use
    assert any("nor thresholds are fitted" in line and "no validation set" in line for line in card.limits_of_use)
    assert card.operating_points.urgent.rule == "never: the split has no validation set"
    point = card.operating_points.slice[Hemorrhage.ANY]
    assert 0.5 < point.threshold <= np.nextafter(0.5, 1)  # strictly greater than 0.5 is positive
    assert ModelCard.from_json(card.to_json()) == card
    # What serving shows is the sigmoid of what the network says.
    shown = consistent(calibrated(test.slices.logits, card.calibration.slice), card.established)
    assert np.allclose(shown[:, 0], sigmoid(test.slices.logits[:, 0]))


def noisy(patients: int = 60, *, seed: int = 5) -> SliceAndStudyScores:
    """Every second patient bleeds; scores of one patient move together and rank imperfectly."""
    truth = bleeding(patients)
    random = np.random.default_rng(seed)
    logits = 2.0 * truth - 2 + random.normal(0, 1.2, (patients, 1, 6)) + random.normal(0, 0.5, truth.shape)
    names = tuple(f"p{number:02d}" for number in range(patients) for _ in range(truth.shape[1]))
    found = LevelScores(logits=logits.reshape(-1, 6), truth=truth.reshape(-1, 6), patients=names)
    return SliceAndStudyScores(slices=found, studies=study_scores(found, RULE, series=found.patients))


def test_operating_points_carry_cross_fitted_performance_with_the_counts_behind_it(origin: Origin) -> None:
    card = folds_card(origin, noisy(), RULE, version="1", more=())
    better = 0
    for point in (*card.operating_points.study.values, card.operating_points.urgent):
        found = point.performance
        assert found is not None
        assert found.method == "cross_fitted"
        assert found.sensitivity is not None
        assert found.specificity is not None
        assert point.sensitivity is not None
        assert point.specificity is not None
        assert (found.sensitivity.rows, found.specificity.rows) == (30, 30)
        for share in (found.sensitivity, found.specificity):
            exact = binomtest(share.hits, share.rows).proportion_ci(method="exact")
            assert share.value == pytest.approx(share.hits / share.rows, abs=1e-4)
            assert (share.low, share.high) == pytest.approx((exact.low, exact.high), abs=1e-4)
        better += point.sensitivity + point.specificity >= found.sensitivity.value + found.specificity.value
    assert better >= 6  # of seven: in sample flatters
    slices = card.operating_points.slice[Hemorrhage.ANY].performance
    assert slices is not None
    assert slices.sensitivity is not None
    assert (slices.sensitivity.rows, slices.sensitivity.patients) == (90, 30)


def test_a_patient_is_decided_by_a_fit_on_other_patients() -> None:
    """Moving a patient's labels within the type that does not stratify the folds leaves that patient's decisions."""
    plain, changed = noisy(), noisy()
    k, row = LABELS.index(Hemorrhage.SUBDURAL), 7
    for one in (plain, changed):
        # The rarest label stratifies the folds: fewer patients have epidural, in both.
        one.studies.truth[:40, LABELS.index(Hemorrhage.EPIDURAL)] = 0
        one.slices.truth[:200, LABELS.index(Hemorrhage.EPIDURAL)] = 0
    changed.studies.truth[row, k] = 1 - changed.studies.truth[row, k]
    settings = fit(plain, established_labels(plain))
    before, after = cross_fitted(plain, settings), cross_fitted(changed, settings)
    assert before is not None
    assert after is not None
    assert np.array_equal(before.studies.probabilities[row], after.studies.probabilities[row])
    assert not np.array_equal(before.studies.probabilities[:, k], after.studies.probabilities[:, k])


def test_any_is_scored_after_it_is_raised_to_an_established_type(origin: Origin) -> None:
    scored_ = noisy()
    scored_.slices.logits[:, 0] = 0.2 * scored_.slices.logits[:, 0]  # any itself ranks worse than its types
    scored_.studies.logits[:, 0] = np.random.default_rng(0).normal(0, 1, len(scored_.studies.logits))
    scored_.studies.logits[:, 0] += 2 * scored_.studies.truth[:, 0]
    card = folds_card(origin, scored_, RULE, version="1", more=())
    assert card.established[Hemorrhage.SUBDURAL]
    settings = settings_of(fit(scored_, established_labels(scored_)))[1]
    served = settings.probabilities(scored_.studies.logits)[:, 0]
    auroc = card.scores[1].labels[Hemorrhage.ANY].auroc
    assert auroc is not None
    assert auroc.value == pytest.approx(roc_auc_score(scored_.studies.truth[:, 0], served), abs=1e-4)
    own = roc_auc_score(scored_.studies.truth[:, 0], scored_.studies.logits[:, 0])
    assert auroc.value != pytest.approx(own, abs=1e-3)


def test_a_test_set_measures_the_shipped_thresholds_themselves(origin: Origin) -> None:
    validation, test = noisy(), noisy(40, seed=6)
    card = split_card(replace(origin, split=SPLIT), validation, test, RULE, version="1", more=())
    shown = consistent(calibrated(test.studies.logits, card.calibration.study), card.established)
    point = card.operating_points.study[Hemorrhage.ANY]
    found = point.performance
    assert found is not None
    assert found.method == "test_set"
    assert found.sensitivity is not None
    assert found.specificity is not None
    positive = test.studies.truth[:, 0] == 1
    assert found.sensitivity.hits == int((shown[positive, 0] >= point.threshold).sum())
    assert found.specificity.hits == int((shown[~positive, 0] < point.threshold).sum())
    assert found.precision is not None
    assert found.precision.rows == int((shown[:, 0] >= point.threshold).sum())


def test_too_few_patients_for_folds_leave_the_performance_in_sample_and_the_limits_state_it(origin: Origin) -> None:
    card = card_of(origin, bleeding(4))
    point = card.operating_points.study[Hemorrhage.ANY]
    assert point.performance is None
    assert point.sensitivity is not None
    assert any("in sample" in line and "too few patients" in line for line in card.limits_of_use)


def test_a_card_without_the_later_keys_is_still_read(origin: Origin) -> None:
    card = folds_card(origin, noisy(), RULE, version="1", more=())
    document = card.to_json()
    for points in (*document["operating_points"]["slice"].values(), *document["operating_points"]["study"].values()):
        del points["performance"]
    del document["operating_points"]["urgent"]["performance"]
    for table in document["scores"]:
        for score in table["labels"].values():
            for key in ("n_negative", "n_negative_patients", "slope", "intercept", "observed_expected"):
                del score[key]
            del score["ece_if_calibrated"]
    old = ModelCard.from_json(document)
    assert old.operating_points.urgent.performance is None
    assert old.scores[0].labels[Hemorrhage.ANY].slope is None
    assert old.operating_points.urgent.threshold == card.operating_points.urgent.threshold
