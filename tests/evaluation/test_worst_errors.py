"""The error gallery keeps the worst errors of each label and kind, one per series, up to its limit."""

import io
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from hemoscope.evaluation.strata import series_facts
from hemoscope.evaluation.worst_errors import ScoredVolume, WorstErrors
from hemoscope.inference.card import ModelCard
from hemoscope.labels import LABELS, Hemorrhage
from hemoscope.volume import HounsfieldVolume

SLICES = 4


def scored(name: str, probabilities: list[float], truth: list[float], label: Hemorrhage) -> ScoredVolume:
    """One series that is wrong, if at all, for one label."""
    k = LABELS.index(label)
    six, labels = np.full((SLICES, 6), 0.1), np.zeros((SLICES, 6))
    six[:, k], labels[:, k] = probabilities, truth
    shape = (SLICES, 48, 48)
    return ScoredVolume(
        volume=HounsfieldVolume(
            hounsfield=np.full(shape, 40, dtype=np.int16),
            spacing_mm=(5.0, 1.0, 1.0),
            positions_mm=(0.0, 5.0, 10.0, 15.0),
            orientation=None,
        ),
        maps=np.zeros((SLICES, 6, 4, 4), dtype=np.float32),
        probabilities=six,
        labels=labels,
        image_ids=[f"{name}_{place}" for place in range(SLICES)],
    )


@pytest.fixture
def worst(make_card: Callable[..., ModelCard]) -> WorstErrors:
    return WorstErrors(make_card(), 2)  # every threshold of the tiny card is 0.5


def test_the_worst_slice_of_each_series_is_kept_in_order_and_up_to_the_limit(worst: WorstErrors) -> None:
    for name, p in (("a", 0.4), ("b", 0.05), ("c", 0.3), ("d", 0.2)):
        worst.add(scored(name, [p + 0.02, p, 0.9, 0.1], [1, 1, 1, 0], Hemorrhage.SUBDURAL))
    found = worst.pictures()
    assert [(one.image_id, one.kind, one.label) for one in found] == [
        ("b_1", "missed", Hemorrhage.SUBDURAL),
        ("d_1", "missed", Hemorrhage.SUBDURAL),
    ]
    assert found[0].probability == pytest.approx(0.05)
    assert found[0].threshold == 0.5
    assert found[0].shows == (Hemorrhage.SUBDURAL,)
    assert found[0].window == "subdural window"


def test_a_false_alarm_is_at_or_above_the_threshold_and_an_unknown_label_is_no_error(worst: WorstErrors) -> None:
    worst.add(scored("a", [0.5, 0.49, 0.99, 0.2], [0, 0, np.nan, np.nan], Hemorrhage.INTRAVENTRICULAR))
    (found,) = worst.pictures()
    assert (found.image_id, found.kind, found.window) == ("a_0", "false alarm", "brain window")
    assert found.shows == ()


def test_the_picture_is_a_jpeg_of_slice_and_heat(worst: WorstErrors) -> None:
    one = scored("a", [0.9, 0.1, 0.1, 0.1], [0, 0, 0, 0], Hemorrhage.ANY)
    one.maps[0, 0] = 9.0
    worst.add(one)
    with Image.open(io.BytesIO(worst.pictures()[0].jpeg)) as picture:
        assert picture.format == "JPEG"
        left, right = np.split(np.asarray(picture).astype(int)[:, : 2 * (picture.width // 2)], 2, axis=1)
    middle = (slice(130, 160), slice(130, 160))
    assert np.ptp(left[middle], axis=2).max() < 12  # grey
    assert (right[middle][..., 0] - right[middle][..., 2]).min() > 60  # hot: far more red than blue


def test_a_limit_of_none_keeps_none(make_card: Callable[..., ModelCard]) -> None:
    nothing = WorstErrors(make_card(), 0)
    nothing.add(scored("a", [0.9] * 4, [0] * 4, Hemorrhage.ANY))
    assert nothing.pictures() == ()


def of_study(one: ScoredVolume, label: Hemorrhage, probability: float) -> ScoredVolume:
    study = np.full(6, 0.1)
    study[LABELS.index(label)] = probability
    return replace(one, study=study, facts=series_facts(one.labels[:, LABELS.index(label)]))


def test_a_missed_study_is_shown_by_its_most_suspicious_slice_that_bleeds(worst: WorstErrors) -> None:
    label = Hemorrhage.SUBDURAL
    worst.add(of_study(scored("a", [0.2, 0.4, 0.3, 0.45], [1, 1, 1, 0], label), label, 0.3))
    slices, study = worst.pictures()
    assert (slices.level, slices.image_id, slices.probability) == ("slice", "a_0", 0.2)
    assert (study.level, study.kind, study.image_id) == ("study", "missed", "a_1")
    assert (study.probability, study.threshold) == (0.3, 0.5)
    assert study.strata == ("between", "lowest 40% of the head")
    assert study.as_dict()["strata"] == ["between", "lowest 40% of the head"]


def test_a_falsely_flagged_study_is_shown_by_its_most_suspicious_slice(worst: WorstErrors) -> None:
    label = Hemorrhage.EPIDURAL
    worst.add(of_study(scored("a", [0.2, 0.4, 0.3, 0.45], [0, 0, 0, np.nan], label), label, 0.6))
    (study,) = worst.pictures()
    assert (study.level, study.kind, study.image_id, study.probability) == ("study", "false alarm", "a_1", 0.6)


def test_a_study_that_is_right_or_unknown_is_no_error(worst: WorstErrors) -> None:
    label = Hemorrhage.ANY
    worst.add(of_study(scored("a", [0.6, 0.7, 0.8, 0.1], [1, 1, 1, 0], label), label, 0.6))
    worst.add(of_study(scored("b", [0.1] * 4, [0] * 4, label), label, 0.4))
    unknown = of_study(scored("c", [0.9] * 4, [np.nan] * 4, label), label, 0.9)
    unknown.labels[:] = np.nan
    worst.add(unknown)
    assert worst.pictures() == ()
