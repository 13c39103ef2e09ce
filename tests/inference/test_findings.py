"""From probabilities to findings at the operating points: findings, key slices, triage."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hemoscope.dicom.slices import QualityNote, SliceHeader, SliceRef, UnreadSlices
from hemoscope.inference.calibration import ConformalSets, OperatingPoint, SliceRule, UnsureRule
from hemoscope.inference.card import ModelCard, OperatingPointTable
from hemoscope.inference.findings import (
    URGENCIES,
    SkippedSeries,
    StudyFindings,
    Triage,
    key_slices,
    present_labels,
    study_findings,
    study_triage,
)
from hemoscope.inference.probabilities import StudyProbabilities
from hemoscope.labels import LABELS, SUBTYPES, Hemorrhage, PerLabel

POINTS = PerLabel.build(lambda label: OperatingPoint(threshold=0.5, rule="fixed"))
ALL = PerLabel.build(lambda label: True)
PROBABILITIES = st.lists(st.floats(0, 1), min_size=6, max_size=6).map(PerLabel.of)
FLAGS = st.lists(st.booleans(), min_size=6, max_size=6).map(PerLabel.of)


def only(*labels: Hemorrhage) -> PerLabel[bool]:
    return PerLabel.build(lambda label: label in labels)


def probable(**values: float) -> PerLabel[float]:
    return PerLabel.build(lambda label: values.get(label, 0.0))


def header(number: int) -> SliceHeader:
    return SliceHeader(
        source=f"slice{number}.dcm",
        frame=0,
        sop_instance_uid=f"1.2.{number}",
        study_instance_uid="1.2",
        series_instance_uid="1.2.3",
        rows=4,
        columns=4,
    )


def findings_of(logits: np.ndarray, card: ModelCard) -> StudyFindings:
    positions = [5.0 * index for index in range(len(logits))]
    note = QualityNote(code="series", message="about the series")
    return study_findings(
        StudyProbabilities.from_logits(logits, positions_mm=positions, card=card),
        slices=[header(index) for index in range(len(logits))],
        positions_mm=positions,
        slice_quality=[(QualityNote(code=f"slice{index}", message="about a slice"),) for index in range(len(logits))],
        quality=(note,),
        skipped_series=(SkippedSeries(series_instance_uid="1.9", reason="thin", instances=2),),
        card=card,
    )


def test_a_label_at_its_threshold_is_present() -> None:
    assert present_labels(probable(any=0.5, subdural=0.5, epidural=0.49), POINTS, ALL) == (
        Hemorrhage.ANY,
        Hemorrhage.SUBDURAL,
    )


def test_a_label_that_is_not_established_raises_no_finding_alone() -> None:
    established = PerLabel.build(lambda label: label is not Hemorrhage.EPIDURAL)
    assert present_labels(probable(any=0.4, epidural=0.9), POINTS, established) == ()
    assert present_labels(probable(any=0.6, epidural=0.6), POINTS, established) == (
        Hemorrhage.ANY,
        Hemorrhage.EPIDURAL,
    )


def test_an_any_that_is_not_established_supports_nothing() -> None:
    assert present_labels(probable(any=0.9, epidural=0.9), POINTS, only()) == ()
    assert present_labels(probable(any=0.9, epidural=0.9), POINTS, only(Hemorrhage.EPIDURAL)) == (Hemorrhage.EPIDURAL,)


@given(PROBABILITIES, FLAGS)
def test_whatever_is_not_established_stands_beside_an_established_any(
    probabilities: PerLabel[float], established: PerLabel[bool]
) -> None:
    present = present_labels(probabilities, POINTS, established)
    if any(not established[label] for label in present):
        assert Hemorrhage.ANY in present
        assert established[Hemorrhage.ANY]


@given(PROBABILITIES, FLAGS)
def test_triage_is_the_same_with_or_without_labels_that_are_not_established(
    make_card: Callable[..., ModelCard], probabilities: PerLabel[float], established: PerLabel[bool]
) -> None:
    card = make_card(established=established)
    without = PerLabel.build(lambda label: probabilities[label] if established[label] else 0.0)
    assert study_triage(probabilities, present_labels(probabilities, POINTS, established), card) == study_triage(
        without, present_labels(without, POINTS, established), card
    )


def test_triage_follows_any_and_then_the_established_findings(make_card: Callable[..., ModelCard]) -> None:
    card = make_card()
    assert study_triage(probable(any=0.9), [Hemorrhage.ANY], card) is Triage.IMMEDIATE
    assert study_triage(probable(any=0.89), [Hemorrhage.ANY], card) is Triage.PROMPT
    assert study_triage(probable(any=0.2, subdural=0.2), [Hemorrhage.SUBDURAL], card) is Triage.PROMPT
    assert study_triage(probable(any=0.2), [], card) is Triage.ROUTINE


UNSURE = UnsureRule(alpha=0.1, sets=(ConformalSets(alpha=0.1, low=0.3, high=0.7),))


@pytest.mark.parametrize(
    ("likely", "triage"),
    [(0.9, "immediate"), (0.89, "prompt"), (0.7, "prompt"), (0.69, "unsure"), (0.3, "unsure"), (0.29, "routine")],
)
def test_a_study_between_the_quantiles_is_unsure(
    make_card: Callable[..., ModelCard], likely: float, triage: str
) -> None:
    """The threshold of any is 0.5, the urgent one 0.9."""
    card = make_card(unsure=UNSURE)
    present = [Hemorrhage.ANY] if likely >= 0.5 else []
    assert study_triage(probable(any=likely), present, card) == triage


def test_no_study_with_a_finding_or_above_the_high_quantile_is_routine(make_card: Callable[..., ModelCard]) -> None:
    low = make_card(unsure=UnsureRule(alpha=0.1, sets=(ConformalSets(alpha=0.1, low=0.8, high=0.85),)))
    assert study_triage(probable(any=0.6), [Hemorrhage.ANY], low) is Triage.UNSURE
    assert study_triage(probable(any=0.86), [], low) is Triage.UNSURE
    high = make_card(unsure=UnsureRule(alpha=0.1, sets=(ConformalSets(alpha=0.1, low=0.3, high=0.95),)))
    assert study_triage(probable(any=0.94), [Hemorrhage.ANY], high) is Triage.UNSURE


def test_without_an_established_any_no_study_is_unsure(make_card: Callable[..., ModelCard]) -> None:
    card = make_card(unsure=UNSURE, established=only(Hemorrhage.SUBDURAL))
    assert study_triage(probable(any=0.5, subdural=0.5), [Hemorrhage.SUBDURAL], card) is Triage.PROMPT
    assert study_triage(probable(any=0.5), [], card) is Triage.ROUTINE


def test_a_card_keeps_its_rule_for_unsure_studies(make_card: Callable[..., ModelCard]) -> None:
    card = make_card(unsure=UNSURE)
    assert ModelCard.from_json(card.to_json()) == card
    document = card.to_json()
    document["unsure"]["alpha"] = 0.2
    with pytest.raises(ValueError, match=r"card\.unsure: the sets of alpha 0\.2 must be there once"):
        ModelCard.from_json(document)
    document = card.to_json()
    document["unsure"]["sets"][0]["low"] = 0.8
    with pytest.raises(ValueError, match="quantiles in rising order"):
        ModelCard.from_json(document)


def test_key_slices_follow_the_own_scores_of_slices_not_the_smoothed_ones(
    make_card: Callable[..., ModelCard],
) -> None:
    """A high slice between low ones stays the key slice, although smoothing puts a run of middling ones above it."""
    logits = np.full((16, 6), -6.0)
    logits[2], logits[8:13] = 5.0, 4.0
    card = make_card(slice_rule=SliceRule(width_mm=7.5))
    result = findings_of(logits, card)
    assert result.findings[0].slices[0].index == 2
    assert result.slices[10].probabilities["any"] > result.slices[2].probabilities["any"]


def test_key_slices_are_the_most_probable_and_apart() -> None:
    probabilities = np.array([0.1, 0.8, 0.9, 0.85, 0.2, 0.7, 0.3])
    assert key_slices(probabilities, [float(i) for i in range(7)], apart_mm=2.0) == (2, 5, 0)
    assert key_slices(probabilities, [5.0 * i for i in range(7)], apart_mm=5.0) == (2, 3, 1)
    assert key_slices(probabilities, [None] * 7, apart_mm=5.0) == (2, 3, 1)


def test_rounded_positions_do_not_push_key_slices_apart() -> None:
    assert key_slices(np.array([0.9, 0.8]), [0.0, 4.9999], apart_mm=5.0) == (0, 1)


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(-100, 100)), min_size=1, max_size=40))
def test_key_slices_start_with_the_highest_and_keep_their_distance(slices: list[tuple[float, float]]) -> None:
    probabilities, positions = np.array([p for p, _ in slices]), [z for _, z in slices]
    keys = key_slices(probabilities, positions, apart_mm=5.0)
    assert 1 <= len(keys) <= 3
    assert probabilities[keys[0]] == probabilities.max()
    assert all(abs(positions[a] - positions[b]) >= 4.99 for a in keys for b in keys if a != b)


def test_a_study_gets_six_findings_its_slices_and_its_notes(make_card: Callable[..., ModelCard]) -> None:
    logits = np.full((4, 6), -4.0)
    logits[1:, [0, 5]] = [[3.0, 3.0], [2.0, 2.0], [1.0, 1.0]]
    result = findings_of(logits, make_card())
    assert (result.study_instance_uid, result.series_instance_uid) == ("1.2", "1.2.3")
    assert tuple(finding.label for finding in result.findings) == LABELS
    by_label = {finding.label: finding for finding in result.findings}
    assert by_label[Hemorrhage.SUBDURAL].present
    refs = tuple(SliceRef(index=index, sop_instance_uid=f"1.2.{index}", frame=0) for index in range(4))
    assert by_label[Hemorrhage.SUBDURAL].slices == refs[1:]
    assert tuple(one.ref for one in result.slices) == refs
    assert dict(result.key_slices.items()) == {finding.label: finding.slices for finding in result.findings}
    assert by_label[Hemorrhage.SUBDURAL].threshold == 0.5
    assert not by_label[Hemorrhage.EPIDURAL].present
    assert by_label[Hemorrhage.EPIDURAL].slices == ()
    assert [one.present for one in result.slices] == [(), *[(Hemorrhage.ANY, Hemorrhage.SUBDURAL)] * 3]
    assert [one.quality[0].code for one in result.slices] == ["slice0", "slice1", "slice2", "slice3"]
    assert [one.position_mm for one in result.slices] == [0.0, 5.0, 10.0, 15.0]
    assert result.quality[0].code == "series"
    assert result.skipped_series[0].instances == 2
    assert result.triage is Triage.IMMEDIATE


def test_a_study_with_unread_slices_is_incomplete(make_card: Callable[..., ModelCard]) -> None:
    whole = findings_of(np.zeros((2, 6)), make_card())
    assert whole.complete
    lost = UnreadSlices(code="no_rescale", message="no rescale", count=3)
    assert not replace(whole, unread=(lost,)).complete


@pytest.mark.parametrize(("read", "lost", "complete"), [(19, 1, True), (38, 2, True), (18, 1, False), (37, 2, False)])
def test_five_percent_may_be_unread(make_card: Callable[..., ModelCard], read: int, lost: int, complete: bool) -> None:
    unread = (UnreadSlices(code="no_rescale", message="no rescale", count=lost),)
    assert replace(findings_of(np.zeros((read, 6)), make_card()), unread=unread).complete is complete


@pytest.mark.parametrize("code", ["few_slices", "single_slice"])
def test_less_than_a_head_is_incomplete_with_its_reason(make_card: Callable[..., ModelCard], code: str) -> None:
    whole = findings_of(np.zeros((2, 6)), make_card())
    part = replace(whole, quality=(*whole.quality, QualityNote(code=code, message="not a head")))
    assert not part.complete
    assert part.unread_reasons == (UnreadSlices(code=code, message="not a head", count=0),)


@pytest.mark.parametrize("triage", Triage)
def test_an_incomplete_study_is_never_plain_routine(make_card: Callable[..., ModelCard], triage: Triage) -> None:
    whole = replace(findings_of(np.zeros((2, 6)), make_card()), triage=triage)
    part = replace(whole, unread=(UnreadSlices(code="no_rescale", message="no rescale", count=3),))
    assert whole.urgency == triage.value
    assert part.urgency == ("incomplete" if triage is Triage.ROUTINE else triage.value)
    assert list(URGENCIES) == ["immediate", "prompt", "unsure", "incomplete", "routine"]


def test_slices_and_study_have_thresholds_of_their_own(make_card: Callable[..., ModelCard]) -> None:
    strict = PerLabel.build(lambda label: OperatingPoint(threshold=0.999, rule="fixed"))
    points = OperatingPointTable(slice=strict, study=POINTS, urgent=OperatingPoint(threshold=0.9, rule="fixed"))
    result = findings_of(np.full((3, 6), 1.0), make_card(operating_points=points))
    assert all(finding.present for finding in result.findings)
    assert all(one.present == () for one in result.slices)


@given(st.lists(st.floats(-8, 8), min_size=6, max_size=6), FLAGS)
def test_types_that_are_not_established_alone_leave_a_study_routine(
    make_card: Callable[..., ModelCard], scores: list[float], flags: PerLabel[bool]
) -> None:
    established = PerLabel.build(lambda label: label is Hemorrhage.ANY or flags[label])
    logits = np.array([[-8.0, *scores[1:]]])
    logits[0, [LABELS.index(label) for label in SUBTYPES if established[label]]] = -8.0
    result = findings_of(logits, make_card(established=established))
    assert result.triage is Triage.ROUTINE
    assert not any(finding.present for finding in result.findings)
    assert result.slices[0].present == ()


def test_headers_and_scores_that_differ_in_number_are_refused(make_card: Callable[..., ModelCard]) -> None:
    card = make_card()
    probabilities = StudyProbabilities.from_logits(np.zeros((2, 6)), positions_mm=[0.0, 5.0], card=card)
    with pytest.raises(ValueError, match="zip"):
        study_findings(
            probabilities,
            slices=[header(0)],
            positions_mm=[0.0, 5.0],
            slice_quality=[(), ()],
            quality=(),
            skipped_series=(),
            card=card,
        )
