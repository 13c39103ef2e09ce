"""Splits: properties of any manifest, and scikit-learn as the reference for the paper's split."""

import hashlib
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.model_selection import train_test_split

from hemoscope.data.split import patient_folds, split_by_patient, split_by_slice
from hemoscope.errors import DataError
from hemoscope.inference.card import images_sha256
from hemoscope.labels import SUBTYPES

counts = st.tuples(*[st.sampled_from([0, 0, 0, 1, 7]) for _ in SUBTYPES]).map(lambda types: (max(types), *types))
manifests = st.dictionaries(st.text("abc123_", min_size=1, max_size=5), counts, min_size=6, max_size=40)
folds_and_seed = st.tuples(st.integers(2, 6), st.integers(0, 1000))


@given(manifests, folds_and_seed)
def test_every_patient_is_in_exactly_one_fold_and_folds_are_of_one_size(
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


def images_of(positives: dict[str, tuple[int, ...]], *, each: int = 3) -> tuple[list[str], list[str], np.ndarray]:
    """``each`` images a patient; the first ones are positive."""
    rows = [(patient, place) for patient in positives for place in range(each)]
    labels = np.array([[float(count > place) for count in positives[patient]] for patient, place in rows])
    return [f"{patient}-{place}" for patient, place in rows], [patient for patient, _ in rows], labels


large = st.dictionaries(st.text("abc123_", min_size=1, max_size=5), counts, min_size=20, max_size=60)


@given(large, st.integers(0, 1000))
def test_no_patient_is_on_two_sides_of_a_split(positives: dict[str, tuple[int, ...]], seed: int) -> None:
    image_ids, patients, labels = images_of(positives)
    split = split_by_patient(image_ids, patients, labels, validation=0.2, test=0.1, seed=seed)
    parts = (split.train, split.validation, split.test)
    assert sorted(image for part in parts for image in part) == sorted(image_ids)
    owner = dict(zip(image_ids, patients, strict=True))
    sides = [{owner[image] for image in part} for part in parts]
    assert sum(map(len, sides)) == len(positives)
    for side, share in zip(sides, (0.7, 0.2, 0.1), strict=True):
        assert abs(len(side) - share * len(positives)) <= 2
    assert split.warning is None


@given(large, st.integers(0, 1000), st.randoms())
def test_a_split_does_not_depend_on_the_order_of_rows(
    positives: dict[str, tuple[int, ...]], seed: int, random: object
) -> None:
    image_ids, patients, labels = images_of(positives)
    order = list(range(len(image_ids)))
    random.shuffle(order)  # type: ignore[attr-defined]
    shuffled = ([image_ids[i] for i in order], [patients[i] for i in order], labels[order])
    assert split_by_patient(*shuffled, seed=seed) == split_by_patient(image_ids, patients, labels, seed=seed)


def test_the_rarest_label_is_in_every_subset_in_its_share() -> None:
    positives = {f"p{i:03d}": (1, 1, 0, 0, 0, 0) if i < 10 else (1, 0, 1, 0, 0, 0) for i in range(100)}
    image_ids, patients, labels = images_of(positives)
    labels[labels == 0] = np.nan  # unknown is not negative, and does not count
    split = split_by_patient(image_ids, patients, labels)
    rare = {f"p{i:03d}" for i in range(10)}
    held = [
        len({image.rpartition("-")[0] for image in part} & rare) for part in (split.train, split.validation, split.test)
    ]
    assert held == [8, 1, 1]


@pytest.mark.parametrize("shares", [(0.5, 0.5), (-0.1, 0.1), (0.0, 1.0)])
def test_shares_that_leave_nothing_for_training_are_refused(shares: tuple[float, float]) -> None:
    image_ids, patients, labels = images_of({f"p{i}": (0,) * 6 for i in range(20)})
    with pytest.raises(DataError, match="must be shares that leave patients for training"):
        split_by_patient(image_ids, patients, labels, validation=shares[0], test=shares[1])


def test_a_part_without_a_patient_is_refused() -> None:
    image_ids, patients, labels = images_of({"p1": (0,) * 6, "p2": (0,) * 6})
    with pytest.raises(DataError, match="2 patients leave none for"):
        split_by_patient(image_ids, patients, labels)


def test_no_validation_set_may_be_requested() -> None:
    image_ids, patients, labels = images_of({f"p{i}": (0,) * 6 for i in range(10)})
    split = split_by_patient(image_ids, patients, labels, validation=0.0, test=0.2)
    assert (len(split.train), split.validation, len(split.test)) == (24, (), 6)


@given(st.sets(st.text("abc123_", min_size=1, max_size=6), min_size=2, max_size=200), st.integers(0, 2**32 - 1))
def test_the_split_of_the_paper_is_that_of_scikit_learn_on_sorted_ids(image_ids: set[str], seed: int) -> None:
    train, test = train_test_split(sorted(image_ids), test_size=0.1, random_state=seed)
    split = split_by_slice(list(image_ids), seed=seed)
    assert (split.train, split.test, split.validation) == (tuple(train), tuple(test), ())


def test_the_split_of_the_paper_has_its_seed_and_size_and_states_that_it_leaks() -> None:
    image_ids = [f"ID_{i:06x}" for i in range(10_001)]
    split = split_by_slice(image_ids)
    assert list(split.test) == train_test_split(image_ids, test_size=0.1, random_state=257)[1]
    assert len(split.test) == 1001
    assert split.warning is not None
    assert "slices of one patient are in both train and test" in split.warning


def test_a_split_by_slice_of_repeated_or_too_few_images_is_refused() -> None:
    with pytest.raises(DataError, match="1 image ids occur twice"):
        split_by_slice(["a", "b", "a"])
    with pytest.raises(DataError, match=r"a test share of 0\.1 of 1 images leaves one set empty"):
        split_by_slice(["a"])


def test_the_hash_of_a_set_of_images_forgets_their_order_and_sees_every_change() -> None:
    assert images_sha256(["b", "a"]) == hashlib.sha256(b"a\nb").hexdigest() == images_sha256(("a", "b"))
    assert images_sha256(["a"]) != images_sha256(["b"])
