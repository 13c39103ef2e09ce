"""Splits by patient: what must hold for any manifest."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hemoscope.data.split import patient_folds
from hemoscope.errors import DataError
from hemoscope.labels import SUBTYPES

counts = st.tuples(*[st.sampled_from([0, 0, 0, 1, 7]) for _ in SUBTYPES]).map(lambda types: (max(types), *types))
manifests = st.dictionaries(st.text("abc123_", min_size=1, max_size=5), counts, min_size=6, max_size=40)
folds_and_seed = st.tuples(st.integers(2, 6), st.integers(0, 1000))


@given(manifests, folds_and_seed)
def test_every_patient_stands_in_exactly_one_fold_and_folds_are_of_one_size(
    positives: dict[str, tuple[int, ...]], how: tuple[int, int]
) -> None:
    folds, seed = how
    fold_of = patient_folds(positives, folds=folds, seed=seed)
    assert set(fold_of) == set(positives)
    sizes = Counter(fold_of.values())
    assert set(sizes) == set(range(folds))
    assert max(sizes.values()) - min(sizes.values()) <= 1


@given(manifests, folds_and_seed)
def test_patients_with_the_rarest_label_are_spread_evenly(
    positives: dict[str, tuple[int, ...]], how: tuple[int, int]
) -> None:
    folds, seed = how
    fold_of = patient_folds(positives, folds=folds, seed=seed)
    carriers = [{p for p, slices in positives.items() if slices[i + 1]} for i in range(len(SUBTYPES))]
    rarest = min((group for group in carriers if group), key=len, default=set())
    held = [sum(fold_of[p] == fold for p in rarest) for fold in range(folds)]
    assert max(held) - min(held) <= 1


@given(manifests, folds_and_seed, st.randoms())
def test_the_folds_follow_from_the_seed_and_not_from_the_order_of_the_table(
    positives: dict[str, tuple[int, ...]], how: tuple[int, int], random: object
) -> None:
    folds, seed = how
    shuffled = list(positives.items())
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert patient_folds(dict(shuffled), folds=folds, seed=seed) == patient_folds(positives, folds=folds, seed=seed)


def test_another_seed_deals_otherwise() -> None:
    positives = {f"p{i}": (0,) * 6 for i in range(20)}
    assert len({tuple(patient_folds(positives, folds=4, seed=seed).items()) for seed in range(5)}) > 1


def test_patients_with_a_bleed_are_spread_apart_from_those_without() -> None:
    positives = {f"p{i}": (3, 3, 0, 0, 0, 0) if i < 10 else (0,) * 6 for i in range(20)}
    fold_of = patient_folds(positives, folds=5, seed=1)
    assert Counter(fold_of[f"p{i}"] for i in range(10)) == dict.fromkeys(range(5), 2)


@pytest.mark.parametrize(("patients", "folds"), [(3, 4), (3, 1), (0, 2)])
def test_too_few_patients_or_folds_are_refused(patients: int, folds: int) -> None:
    positives = {f"p{i}": (0,) * 6 for i in range(patients)}
    with pytest.raises(DataError, match=f"{patients} patients cannot make {folds} folds"):
        patient_folds(positives, folds=folds, seed=1)
