"""The head phantom: anatomy in Hounsfield units, and bleeds where the ground truth says."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hemoscope.labels import LABELS, SUBTYPES, Hemorrhage
from hemoscope.testing.phantom import BLOOD, make_phantom


def test_the_same_seed_gives_the_same_head_and_another_seed_another() -> None:
    first, again, other = (make_phantom(seed=seed, shape=(3, 64, 64)) for seed in (1, 1, 2))
    assert np.array_equal(first.hounsfield, again.hounsfield)
    assert not np.array_equal(first.hounsfield, other.hounsfield)


def test_air_bone_brain_and_csf_measure_what_tissue_measures() -> None:
    hounsfield = make_phantom(seed=3, shape=(15, 128, 128)).hounsfield
    assert abs(np.median(hounsfield[:, :6, :6]) + 1000) < 5
    assert hounsfield.max() > 1000
    brain = hounsfield[7, 30:100, 40:90]
    assert 25 < np.median(brain) < 40
    assert (abs(brain - 6) < 6).mean() > 0.05


@pytest.mark.parametrize("label", SUBTYPES)
@pytest.mark.parametrize("seed", range(4))
def test_a_planted_bleed_shows_on_the_middle_slices_at_the_hu_of_blood(label: Hemorrhage, seed: int) -> None:
    phantom = make_phantom(seed=seed, bleeds=frozenset({label}))
    mask = phantom.masks[label]
    assert mask[5:7].any(axis=(1, 2)).all()
    assert abs(np.median(phantom.hounsfield[mask]) - BLOOD) < 15
    assert np.array_equal(mask, phantom.masks["any"])


@pytest.mark.parametrize("label", SUBTYPES)
def test_only_the_bleed_differs_from_the_same_head_without_it(label: Hemorrhage) -> None:
    with_bleed = make_phantom(seed=5, bleeds=frozenset({label}), noise_hu=0)
    without = make_phantom(seed=5, noise_hu=0)
    changed = abs(with_bleed.hounsfield - without.hounsfield) > 12
    assert changed[with_bleed.masks[label]].mean() > 0.5
    near = np.zeros_like(changed)
    for shift in (-2, -1, 0, 1, 2):
        for axis in (1, 2):
            near |= np.roll(with_bleed.masks[label], shift, axis)
    near |= np.roll(near, 1, 1) | np.roll(near, -1, 1) | np.roll(near, 1, 2) | np.roll(near, -1, 2)
    assert not changed[~near].any()


@given(seed=st.integers(0, 10_000), bleeds=st.frozensets(st.sampled_from(SUBTYPES)))
@settings(max_examples=20, deadline=None)
def test_masks_never_overlap_and_any_is_their_union(seed: int, bleeds: frozenset[Hemorrhage]) -> None:
    phantom = make_phantom(seed=seed, shape=(5, 48, 48), bleeds=bleeds)
    total = sum(phantom.masks[label].astype(int) for label in SUBTYPES)
    assert total.max() <= 1
    assert np.array_equal(total > 0, phantom.masks["any"])
    assert set(bleeds) == {label for label in SUBTYPES if phantom.masks[label].any()}


@pytest.mark.parametrize(("side", "sign"), [("left", 1), ("right", -1)])
def test_the_left_of_the_patient_is_towards_the_last_column(side: str, sign: int) -> None:
    phantom = make_phantom(seed=1, bleeds=frozenset({Hemorrhage.EPIDURAL}), side=side, marker=True)
    columns = np.nonzero(phantom.masks["epidural"])[2]
    assert np.sign(columns.mean() - 63.5) == sign
    assert (phantom.hounsfield[:, :, 105:] > 1000).any()
    assert not (phantom.hounsfield[:, :, :22] > 1000).any()


def test_slice_labels_state_which_slices_show_which_bleed() -> None:
    phantom = make_phantom(seed=1, shape=(30, 64, 64), bleeds=frozenset({Hemorrhage.INTRAVENTRICULAR}))
    labels = phantom.slice_labels
    assert labels.shape == (30, 6)
    assert labels[15, LABELS.index(Hemorrhage.INTRAVENTRICULAR)]
    assert not labels[0].any()


def test_the_volume_knows_its_geometry_and_nothing_can_be_written_into_it() -> None:
    phantom = make_phantom(seed=1, shape=(3, 64, 64), spacing_mm=(2.5, 3.0, 3.5))
    assert phantom.volume.positions_mm == (-2.5, 0.0, 2.5)
    assert phantom.volume.spacing_mm == (2.5, 3.0, 3.5)
    for array in (phantom.hounsfield, *phantom.masks.values):
        with pytest.raises(ValueError, match="read-only"):
            array[0, 0, 0] = 1


def test_the_table_lies_behind_the_head() -> None:
    with_table, without = (make_phantom(seed=1, table=table) for table in (True, False))
    rows = np.nonzero((with_table.hounsfield - without.hounsfield) > 100)[1]
    assert rows.min() > 64


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"shape": (0, 64, 64)}, "at least one slice"),
        ({"shape": (3, 8, 64)}, "16 x 16"),
        ({"spacing_mm": (5.0, 0.0, 1.0)}, "spacing must be positive"),
        ({"noise_hu": -1.0}, "noise cannot be negative"),
        ({"side": "top"}, "'left' or 'right'"),
        ({"bleeds": frozenset({Hemorrhage.ANY})}, "Name the types"),
    ],
)
def test_a_head_that_cannot_be_made_is_refused(arguments: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make_phantom(seed=0, **arguments)  # type: ignore[arg-type]
