"""The card of a trained model: what is fitted on which data, and the reasons if nothing can be fitted."""

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from hemoscope.data.split import LEAK_WARNING
from hemoscope.inference.calibration import Calibration, StudyRule, sigmoid
from hemoscope.inference.card import ModelCard, SplitRecord, TrainingData
from hemoscope.inference.findings import Triage, present_labels, study_triage
from hemoscope.inference.probabilities import calibrated, consistent
from hemoscope.labels import LABELS, Hemorrhage, PerLabel
from hemoscope.training.experiment import Experiment
from hemoscope.training.fitted_card import Origin, folds_card, split_card
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


def card_of(origin: Origin, truth: NDArray[np.float64]) -> ModelCard:
    return folds_card(origin, scored(truth), RULE, version="1", more=())


@pytest.mark.parametrize("positive", [0, 1])
def test_a_label_of_too_few_patients_is_not_fitted_and_the_card_states_it(origin: Origin, positive: int) -> None:
    truth = bleeding(20, without=(Hemorrhage.EPIDURAL,))
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
    assert card.operating_points == same.operating_points
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
    found = calibrated(test.slices.logits, card.calibration.slice)
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
