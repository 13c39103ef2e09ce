"""What a site reports of its scores: counts that hide rows; and which counts from elsewhere are refused."""

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hemoscope.errors import FederationError
from hemoscope.federated.exchange.histograms import (
    EDGES,
    FINE_CELLS,
    Cell,
    CellCounts,
    ClassCounts,
    ScoreHistograms,
    count_cells,
    parse_histograms,
    score_histograms,
)
from hemoscope.labels import LABELS
from hemoscope.training.run_scores import LevelScores

ANY = LABELS[0]

_rows = st.lists(
    st.tuples(st.floats(-12, 12), st.sampled_from([0.0, 1.0, np.nan]), st.integers(0, 6)), min_size=0, max_size=60
)


def scores_of(rows: list[tuple[float, float, int]]) -> LevelScores:
    """All six labels alike: (logit, truth, patient) of each row."""
    logits = np.array([[logit] * 6 for logit, _, _ in rows]).reshape(-1, 6)
    truth = np.array([[known] * 6 for _, known, _ in rows]).reshape(-1, 6)
    return LevelScores(logits=logits, truth=truth, patients=tuple(f"p{patient}" for _, _, patient in rows))


def ten_and_ten() -> LevelScores:
    return scores_of([(number / 2 - 3, float(number >= 10), number) for number in range(20)])


@given(rows=_rows, least=st.integers(1, 8))
def test_a_cell_holds_enough_rows_and_every_row_of_a_reported_class_is_counted(
    rows: list[tuple[float, float, int]], least: int
) -> None:
    found = score_histograms(scores_of(rows), level="slice", least_cell=least)
    reported = [found.positive[ANY], found.negative[ANY]]
    for counts, truth in zip(reported, (1.0, 0.0), strict=True):
        mine = [logit for logit, known, _ in rows if known == truth]
        if counts is None:
            continue
        assert counts.rows == len(mine)
        assert all(cell.count >= least for cell in counts.cells)
        for cell in counts.cells:
            low, high = cell.bounds
            assert cell.count == sum(low <= logit < high for logit in mine)
        assert counts.patients <= len({patient for _, known, patient in rows if known == truth})
    assert parse_histograms(found.to_json()) == found


@given(rows=_rows)
def test_no_number_from_one_below_the_least_cell_can_be_reported_or_subtracted(
    rows: list[tuple[float, float, int]],
) -> None:
    found = score_histograms(scores_of(rows), level="slice", least_cell=5)
    counts = [sum(known == truth for _, known, _ in rows) for truth in (1.0, 0.0)]
    if any(0 < count < 5 for count in counts):
        assert found.positive[ANY] is None
        assert found.negative[ANY] is None
    assert found.rows == (len(rows) if len(rows) >= 5 else 0)
    assert found.patients not in (1, 3, 4)


def test_the_class_that_is_there_goes_where_the_other_is_empty() -> None:
    rows = [(float(number % 3), 0.0, number) for number in range(12)]
    found = score_histograms(scores_of(rows), level="patient", least_cell=5)
    assert found.positive[ANY] == ClassCounts(cells=(), patients=0)
    assert found.negative[ANY] is not None
    assert found.negative[ANY].rows == found.negative[ANY].patients == 12


def test_slices_of_one_patient_alone_are_never_reported() -> None:
    positive = [(2.0, 1.0, 0)] * 30
    negative = [(-2.0, 0.0, number) for number in range(12)]
    found = score_histograms(scores_of(positive + negative), level="slice", least_cell=5)
    assert found.positive[ANY] is None
    of_two = score_histograms(scores_of([*positive, (2.0, 1.0, 1), *negative]), level="slice", least_cell=5)
    assert of_two.positive[ANY] == ClassCounts(cells=(Cell(first=41, last=41, count=31),), patients=2)


def test_fine_cells_are_quarter_logits_with_open_ends() -> None:
    logits = [-8.01, -8.0, -7.76, 7.99, 8.0, 300.0]
    found = score_histograms(scores_of([(x, 1.0, 0) for x in logits]), level="slice", least_cell=1)
    assert found.positive[ANY] is not None
    assert [(cell.bounds, cell.count) for cell in found.positive[ANY].cells] == [
        ((-np.inf, -8.0), 1),
        ((-8.0, -7.75), 2),
        ((7.75, 8.0), 1),
        ((8.0, np.inf), 2),
    ]
    assert len(EDGES) + 1 == FINE_CELLS == 66


def test_neither_patients_nor_scores_stand_in_what_is_sent() -> None:
    text = score_histograms(ten_and_ten(), level="patient", least_cell=5).to_json()
    assert set(json.loads(text)) == {"format", "level", "least_cell", "rows", "patients", "labels"}
    assert "p1" not in text
    assert "." not in text.replace("hemoscope.histograms", "")  # whole numbers alone
    assert len(text) < 2000


@pytest.mark.parametrize("least", [0, -3])
def test_a_cell_of_nothing_is_refused(least: int) -> None:
    with pytest.raises(FederationError, match=f"least_cell is {least}"):
        score_histograms(ten_and_ten(), level="slice", least_cell=least)


def test_a_score_that_is_not_finite_is_refused() -> None:
    with pytest.raises(FederationError, match="not a finite number"):
        score_histograms(scores_of([(np.nan, 1.0, 0)]), level="slice", least_cell=5)


def changed(*place: str | int, to: Any) -> str:
    """What a site sent, with one value replaced."""
    data = json.loads(score_histograms(ten_and_ten(), level="slice", least_cell=5).to_json())
    inner = data
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = to
    return json.dumps(data)


CELLS = ("labels", "any", "positive", "cells")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no JSON"),
        ("x" * 70_000, "70000 characters"),
        ("[" * 60_000, "no JSON"),
        ("[]", "must have the keys"),
        ('{"format": 1, "format": 2}', "no JSON"),
        (changed("format", to="hemoscope.histograms/2"), "expected hemoscope.histograms/1"),
        (changed("level", to="site"), "expected hemoscope.histograms/1"),
        (changed("rows", to=float("nan")), "no JSON"),
        (changed("rows", to=20.0), "rows is no whole number"),
        (changed("rows", to=True), "rows is no whole number"),
        (changed("rows", to=-1), "rows is no whole number"),
        (changed("rows", to=10**12), "rows is no whole number"),
        (changed("rows", to=19), "counts more rows than the 19"),
        (changed("least_cell", to=0), "least_cell is 0"),
        (changed("patients", to=3), "of 3 in all"),
        (changed("labels", "any", to={}), "any must have the keys"),
        (changed("labels", to={}), "labels must have the keys"),
        (changed("labels", "any", "positive", "patients", to=0), "of 0 patients"),
        (changed("labels", "any", "positive", "name", to="x"), "any must have the keys"),
        (changed(*CELLS, to={}), "are no list"),
        (changed(*CELLS, to=[[1, 1, 5]] * 67), "are no list of at most 66"),
        (changed(*CELLS, 0, to=[1, 2]), "is not"),
        (changed(*CELLS, 0, to=[1, 2, "5"]), "is no whole number"),
        (changed(*CELLS, 0, 0, to=-1), "is no whole number"),
        (changed(*CELLS, 0, 2, to=-5), "is no whole number"),
        (changed(*CELLS, 0, 2, to=4), "a cell of 4 rows, and 5 is the least"),
        (changed(*CELLS, to=[[9, 8, 5], [10, 11, 5]]), "do not rise"),
        (changed(*CELLS, to=[[9, 12, 5], [12, 13, 5]]), "do not rise"),
        (changed(*CELLS, to=[[30, 40, 5], [1, 2, 5]]), "do not rise"),
        (changed(*CELLS, to=[[30, 66, 10]]), "do not rise from 0 to 65"),
    ],
)
def test_hostile_histograms_are_refused(text: str, words: str) -> None:
    with pytest.raises(FederationError, match=words):
        parse_histograms(text)


def test_counts_that_cannot_be_are_refused_however_they_were_made() -> None:
    found = score_histograms(ten_and_ten(), level="slice", least_cell=5)
    with pytest.raises(FederationError, match="-1 rows"):
        ScoreHistograms(
            level="slice", least_cell=5, rows=-1, patients=2, positive=found.positive, negative=found.negative
        )


@given(st.text(max_size=200) | st.recursive(st.integers() | st.none(), st.lists).map(json.dumps))
def test_whatever_is_sent_is_read_or_refused(text: str) -> None:
    with pytest.raises(FederationError):
        parse_histograms(text)


def test_cells_of_one_patient_are_counted_for_the_site() -> None:
    """Positives: a cell of one patient and a cell of two. Negatives: ten patients in one cell."""
    alone = [(3.1, 1.0, 0)] * 5
    two = [(5.1, 1.0, 1)] * 3 + [(5.1, 1.0, 2)] * 2
    negative = [(-2.0, 0.0, number) for number in range(10)]
    scores = scores_of([*alone, *two, *negative])
    found = count_cells(scores, score_histograms(scores, level="slice", least_cell=5))
    assert found == CellCounts(6 * 3, 6)
    assert found + CellCounts(1, 1) == CellCounts(19, 7)


def test_what_is_not_sent_has_no_cells() -> None:
    scores = scores_of([(1.0, 1.0, 0)] * 3)
    assert count_cells(scores, score_histograms(scores, level="slice", least_cell=5)) == CellCounts(0, 0)


@given(rows=_rows, least=st.integers(1, 8))
def test_a_cell_of_one_patient_is_one_of_the_cells_that_are_sent(
    rows: list[tuple[float, float, int]], least: int
) -> None:
    found = score_histograms(scores_of(rows), level="slice", least_cell=least)
    counts = count_cells(scores_of(rows), found)
    classes = [one for label in LABELS for one in (found.positive[label], found.negative[label]) if one is not None]
    assert counts.cells == sum(len(one.cells) for one in classes)
    assert 0 <= counts.of_one_patient <= counts.cells
