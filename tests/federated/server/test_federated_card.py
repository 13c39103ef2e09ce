"""The card of a federated model: fitted on counts alone, and saying so."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from hemoscope.errors import FederationError
from hemoscope.federated.exchange.histograms import score_histograms
from hemoscope.federated.server.federated_card import (
    PartHistograms,
    SiteHistograms,
    federated_folds_card,
    federated_split_card,
    read_histograms,
)
from hemoscope.inference.calibration import Calibration, StudyRule
from hemoscope.inference.card import FederationRecord, ModelCard, TrainingData
from hemoscope.labels import LABELS, Hemorrhage
from hemoscope.training.experiment import Experiment
from hemoscope.training.fitted_card import Origin, folds_card
from hemoscope.training.run_scores import LevelScores, SliceAndStudyScores, study_scores

RULE = StudyRule()
RAW = Calibration(scale=1.0, bias=0.0)
DATA = TrainingData(name="3 sites", version="1", doi="", license="none", attribution="made here", changes="none")
RECORD = FederationRecord(
    sites=3,
    rounds=4,
    local_epochs=1,
    strategy="fedavg",
    batch_norm="shared",
    weighting="slices",
    secure_aggregation=False,
    personalised=False,
)
NOTHING = SiteHistograms(slices=(), studies=())


def site(
    seed: int, *, patients: int = 30, slices: int = 6, without: tuple[Hemorrhage, ...] = ()
) -> SliceAndStudyScores:
    """Scores that rank well: every second patient bleeds in the middle slices, with every type but those left out."""
    truth = np.zeros((patients, slices, 6))
    truth[::2, 1:4, :] = 1
    for label in without:
        truth[:, :, LABELS.index(label)] = 0
    flat: NDArray[np.float64] = truth.reshape(-1, 6)
    logits = 3 * flat - 2 + np.random.default_rng(seed).normal(0, 0.9, flat.shape)
    names = tuple(f"{seed}-{number}" for number in range(patients) for _ in range(slices))
    found = LevelScores(logits=logits, truth=flat, patients=names)
    return SliceAndStudyScores(slices=found, studies=study_scores(found, RULE, series=found.patients))


def reported(*sites: SliceAndStudyScores, least: int = 5) -> SiteHistograms:
    return SiteHistograms(
        slices=tuple(score_histograms(one.slices, level="slice", least_cell=least) for one in sites),
        studies=tuple(score_histograms(one.studies, level="patient", least_cell=least) for one in sites),
    )


def joined(*sites: SliceAndStudyScores) -> SliceAndStudyScores:
    def join(of: Callable[[SliceAndStudyScores], LevelScores]) -> LevelScores:
        parts = [of(one) for one in sites]
        return LevelScores(
            logits=np.concatenate([one.logits for one in parts]),
            truth=np.concatenate([one.truth for one in parts]),
            patients=tuple(name for one in parts for name in one.patients),
        )

    return SliceAndStudyScores(slices=join(lambda one: one.slices), studies=join(lambda one: one.studies))


@pytest.fixture
def origin(small_experiment: Callable[..., Experiment]) -> Origin:
    return Origin(experiment=small_experiment(), dataset=DATA, split=None, embedding_size=8, federation=RECORD)


@pytest.fixture(scope="module")
def sites() -> tuple[SliceAndStudyScores, ...]:
    return tuple(site(seed) for seed in range(3))


def split_card(origin: Origin, sites: tuple[SliceAndStudyScores, ...], **changes: Any) -> ModelCard:
    part = PartHistograms(score=reported(*sites), validation=reported(*(site(seed) for seed in range(10, 13))))
    return federated_split_card(origin, replace(part, **changes), RULE, version="1")


def test_the_card_scores_the_test_parts_and_is_fitted_on_the_validation_parts(
    origin: Origin, sites: tuple[SliceAndStudyScores, ...]
) -> None:
    card = split_card(origin, sites)
    assert card.federation == RECORD
    by_slice, by_study = card.scores
    assert (by_slice.level, by_slice.n_images, by_slice.n_patients) == ("slice", 540, 90)
    assert (by_study.level, by_study.n_images, by_study.n_patients) == ("patient", 90, 90)
    assert by_slice.name == "3 sites, test parts, by slice"
    score = by_study.labels[Hemorrhage.ANY]
    assert (score.n_positive, score.n_positive_patients, score.average_precision) == (45, 45, None)
    assert score.ece is not None
    assert all(card.established.values)
    other = split_card(origin, sites, validation=reported(*(site(seed) for seed in range(20, 23))))
    assert other.scores[0].labels[Hemorrhage.ANY].auroc == by_slice.labels[Hemorrhage.ANY].auroc
    assert other.calibration != card.calibration
    assert ModelCard.from_json(card.to_json()) == card


def test_the_card_is_close_to_that_of_the_rows(origin: Origin, sites: tuple[SliceAndStudyScores, ...]) -> None:
    """The rows of two folds and their histograms, each through its own path to a card."""
    of_rows = folds_card(origin, joined(*sites), RULE, version="1", more=())
    of_cells = federated_folds_card(origin, [reported(sites[0]), reported(*sites[1:])], RULE, version="1")
    for rows, cells in zip(of_rows.scores, of_cells.scores, strict=True):
        for label in LABELS:
            one, other = rows.labels[label], cells.labels[label]
            assert one.auroc is not None
            assert other.auroc is not None
            if label == Hemorrhage.ANY:
                continue  # of rows, it is scored as served: raised to the highest type, which histograms cannot know
            assert other.auroc.value == pytest.approx(one.auroc.value, abs=0.02)
            assert other.auroc.low is not None
            assert one.auroc.low is not None
            assert other.auroc.low <= one.auroc.low
            assert one.ece is not None
            assert other.ece is not None
            assert other.ece.value == pytest.approx(one.ece.value, abs=0.05)
    for label in LABELS:
        one_point, other_point = of_rows.operating_points.study[label], of_cells.operating_points.study[label]
        assert other_point.rule == one_point.rule
        assert other_point.threshold == pytest.approx(one_point.threshold, abs=0.2)


def test_the_card_says_in_words_what_its_scores_are_made_of(
    origin: Origin, sites: tuple[SliceAndStudyScores, ...]
) -> None:
    card = split_card(origin, sites)
    assert "cells of at least 5 rows, no row was seen: AUROCs are off by at most 0.0" in card.scores[0].description
    assert "as if each patient gave one slice and include that error" in card.scores[0].description
    limits = " ".join(card.limits_of_use)
    assert "sensitivity and specificity are in sample" in limits
    assert "can flag more studies than its scores state" in limits
    assert all(point.performance is None for point in card.operating_points.study.values)
    assert (
        "come from histograms, as each site states them, not from rows. By slice, AUROCs are off by at most 0.0"
        in limits
    )
    assert "reports nothing of a label with 1 to 4 rows, or one patient" in limits
    assert "Each site knows which of its patients were held out" in limits
    assert "Epsilon" not in limits
    private = replace(origin, federation=replace(RECORD, epsilon=40.0, delta=1e-5))
    assert "no histogram, no other part" in " ".join(split_card(private, sites).limits_of_use)


def test_a_label_that_no_site_may_report_is_not_established_and_says_why(origin: Origin) -> None:
    sites = [site(seed, without=(Hemorrhage.EPIDURAL,)) for seed in range(3)]
    for one in sites:
        for scores in (one.slices, one.studies):
            scores.truth[0, LABELS.index(Hemorrhage.EPIDURAL)] = 1
    card = federated_folds_card(origin, [reported(*sites[:2]), reported(sites[2])], RULE, version="1")
    score = card.scores[0].labels[Hemorrhage.EPIDURAL]
    assert score.auroc is None
    assert score.reason == "no site has 5 rows of both classes that it may report"
    assert not card.established[Hemorrhage.EPIDURAL]
    assert card.established[Hemorrhage.SUBDURAL]
    assert card.calibration.slice[Hemorrhage.EPIDURAL] == RAW
    assert any(line.startswith("Epidural: neither calibrated") for line in card.limits_of_use)


def test_a_label_that_nobody_has_says_which_class_is_missing(origin: Origin) -> None:
    card = federated_folds_card(origin, [reported(site(1, without=(Hemorrhage.EPIDURAL,)))], RULE, version="1")
    assert card.scores[1].labels[Hemorrhage.EPIDURAL].reason == "of those reported, none is positive"
    assert card.scores[1].labels[Hemorrhage.EPIDURAL].ece is None


def test_sites_too_small_to_report_anything_give_a_card_that_claims_nothing(origin: Origin) -> None:
    card = federated_folds_card(
        origin, [reported(site(1, patients=4, slices=1)), reported(site(2, patients=3))], RULE, version="1"
    )
    assert not any(card.established.values)
    assert "no row was seen: no AUROC can be computed" in card.scores[1].description
    assert any("by study, no AUROC can be computed" in line for line in card.limits_of_use)
    assert any("0 among them, are the least that there can be" in line for line in card.limits_of_use)


def test_too_few_patients_establish_nothing_however_well_they_rank(origin: Origin) -> None:
    card = federated_folds_card(origin, [reported(site(1, patients=14))], RULE, version="1")
    assert not any(card.established.values)


def test_ten_positive_and_two_negative_patients_establish_nothing(origin: Origin) -> None:
    found = site(1, patients=48)
    keep = np.array([int(name.split("-")[1]) % 2 == 0 or int(name.split("-")[1]) < 4 for name in found.slices.patients])
    slices = LevelScores(
        logits=found.slices.logits[keep] + 6 * found.slices.truth[keep],
        truth=found.slices.truth[keep],
        patients=tuple(np.array(found.slices.patients)[keep]),
    )
    few = SliceAndStudyScores(slices=slices, studies=study_scores(slices, RULE, series=slices.patients))
    card = federated_folds_card(origin, [reported(few, least=2)], RULE, version="1")
    score = card.scores[1].labels[Hemorrhage.ANY]
    assert (score.n_positive_patients, score.n_negative_patients) == (24, 2)
    assert score.auroc is not None
    assert score.auroc.value == 1.0
    assert score.auroc.low == pytest.approx(0.025 ** (1 / 2), abs=1e-4)  # of two pairs, by hand
    assert not card.established[Hemorrhage.ANY]


def test_without_validation_parts_nothing_is_fitted(origin: Origin, sites: tuple[SliceAndStudyScores, ...]) -> None:
    card = split_card(origin, sites, validation=NOTHING)
    assert not any(card.established.values)
    assert card.calibration.slice[Hemorrhage.ANY] == card.calibration.study[Hemorrhage.ANY] == RAW
    assert any("the split has no validation set" in line for line in card.limits_of_use)
    assert card.scores[0].labels[Hemorrhage.ANY].auroc is not None


def test_a_card_of_no_scores_is_refused(origin: Origin, sites: tuple[SliceAndStudyScores, ...]) -> None:
    with pytest.raises(FederationError, match=r"no site reported how its images were scored.*--resume"):
        split_card(origin, sites, score=NOTHING)
    with pytest.raises(FederationError, match="no site reported how its images were scored"):
        federated_folds_card(origin, [NOTHING, NOTHING], RULE, version="1")


def plain(found: SiteHistograms) -> list[dict[str, Any]]:
    return [
        {"slices": json.loads(slices.to_json()), "studies": json.loads(studies.to_json())}
        for slices, studies in zip(found.slices, found.studies, strict=True)
    ]


def test_what_a_server_kept_is_read_back(tmp_path: Path, sites: tuple[SliceAndStudyScores, ...]) -> None:
    part = PartHistograms(score=reported(*sites), validation=reported(sites[0]))
    record = {"score": plain(part.score), "validation": plain(part.validation)}
    (tmp_path / "histograms.json").write_text(json.dumps(record))
    assert read_histograms(tmp_path) == part


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, r"split/histograms\.json does not say how .*No such file.*--resume"),
        ("{", "does not say how .*no JSON"),
        ("{}", "must have the keys score and validation"),
        ('{"score": {}, "validation": []}', "score is no list of sites"),
        ('{"score": [{"slices": {}}], "validation": []}', "score is no list of sites"),
        ('{"score": [{"slices": {}, "studies": {}}], "validation": []}', "score histograms: the histograms must have"),
    ],
)
def test_damaged_histograms_are_refused_without_the_path(tmp_path: Path, content: str | None, words: str) -> None:
    folder = tmp_path / "split"
    folder.mkdir()
    if content is not None:
        (folder / "histograms.json").write_text(content)
    with pytest.raises(FederationError, match=words) as caught:
        read_histograms(folder)
    assert str(tmp_path) not in str(caught.value)


def test_slices_in_the_place_of_studies_are_refused(tmp_path: Path, sites: tuple[SliceAndStudyScores, ...]) -> None:
    (one,) = plain(reported(sites[0]))
    record = {"score": [{"slices": one["slices"], "studies": one["slices"]}], "validation": []}
    (tmp_path / "histograms.json").write_text(json.dumps(record))
    with pytest.raises(FederationError, match="holds slices for studies"):
        read_histograms(tmp_path)


def test_the_card_states_the_share_of_positives_that_calibration_learned(
    origin: Origin, sites: tuple[SliceAndStudyScores, ...]
) -> None:
    assert not any("calibration was fitted at the share" in line for line in split_card(origin, sites).limits_of_use)
    small = site(7, patients=8, slices=6)  # four of eight studies are positive: too few to be reported
    card = split_card(origin, sites, validation=reported(*sites, small))
    (line,) = [line for line in card.limits_of_use if "calibration was fitted at the share" in line]
    assert line.startswith("By study")
    assert "any hemorrhage 0.50 (0.47 to 0.50, 1 withheld)" in line
