"""From Hounsfield units to a model's input: ranges, the head box, slabs, neighbours, and the settings as data."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy
from numpy.typing import NDArray

from hemoscope.inference.preprocess import AIR, Box, Preprocessing, head_box, model_input, resized, slice_box, windowed
from hemoscope.inference.windows import BONE, BRAIN, SUBDURAL, Window
from hemoscope.testing.phantom import make_phantom
from hemoscope.volume import HounsfieldVolume

WHOLE = Preprocessing(size=32, crop="none")


def volume_of(hounsfield: NDArray[np.int16], *, spacing_mm: float | None = None) -> HounsfieldVolume:
    positions = tuple(None if spacing_mm is None else index * spacing_mm for index in range(len(hounsfield)))
    return HounsfieldVolume(
        hounsfield=hounsfield, spacing_mm=(spacing_mm, None, None), positions_mm=positions, orientation=None
    )


def blocks(*places: tuple[slice, slice], shape: tuple[int, int] = (128, 128), hu: int = 40) -> NDArray[np.int16]:
    """Air with blocks of tissue in it."""
    hounsfield = np.full(shape, AIR, dtype=np.int16)
    for place in places:
        hounsfield[place] = hu
    return hounsfield


hounsfields = st_numpy.arrays(
    np.int16,
    st.tuples(st.integers(1, 4), st.integers(1, 40), st.integers(1, 40)),
    elements=st.integers(-32768, 32767),
    fill=st.sampled_from([-32768, -1000, 40, 3071, 32767]),
)
settings_of_models = st.builds(
    Preprocessing,
    windows=st.lists(
        st.builds(Window, center=st.floats(-500, 1500), width=st.floats(1, 4000)), min_size=1, max_size=4
    ).map(tuple),
    size=st.integers(16, 48),
    crop=st.sampled_from(["none", "head"]),
    margin=st.floats(0, 1),
    neighbours=st.integers(0, 3),
    slab_mm=st.none() | st.floats(0.1, 20),
    outside=st.sampled_from(["kept", "air"]),
)


@settings(max_examples=60, deadline=None)
@given(hounsfields, settings_of_models, st.none() | st.floats(0.3, 10), st.data())
def test_every_slice_becomes_values_from_0_to_1_and_stays_as_it_was(
    hounsfield: NDArray[np.int16], preprocessing: Preprocessing, spacing_mm: float | None, data: st.DataObject
) -> None:
    before = hounsfield.tobytes()
    index = data.draw(st.integers(0, len(hounsfield) - 1))
    image = model_input(volume_of(hounsfield, spacing_mm=spacing_mm), index, preprocessing)
    assert image.shape == (preprocessing.channels, preprocessing.size, preprocessing.size)
    assert image.dtype == np.float32
    assert image.min() >= 0
    assert image.max() <= 1
    assert hounsfield.tobytes() == before


@settings(max_examples=40)
@given(settings_of_models)
def test_settings_survive_json(preprocessing: Preprocessing) -> None:
    assert Preprocessing.from_json(json.loads(json.dumps(preprocessing.to_json()))) == preprocessing


def test_channels_are_the_windows_of_the_slice() -> None:
    image = model_input(volume_of(blocks((slice(None), slice(None)))[None]), 0, WHOLE)
    assert [float(channel.mean()) for channel in image] == pytest.approx([40 / 80, 60 / 200, 840 / 2800])


def test_an_evenly_dense_slice_stays_so_at_any_size() -> None:
    image = resized(np.full((50, 70), 37, dtype=np.int16), Box(top=5, left=10, side=40), 32)
    assert image == pytest.approx(np.full((32, 32), 37.0), abs=1e-3)


def test_hounsfield_units_are_resized_before_the_windows_so_bone_beside_brain_is_no_rim_of_blood() -> None:
    """Half bone, half air: the mean, 0 HU, is dark in the brain window; mixing after the window gives 0.5."""
    stripes = np.full((1, 64, 64), AIR, dtype=np.int16)
    stripes[:, ::2] = 1000
    image = model_input(volume_of(stripes), 0, Preprocessing(windows=(BRAIN,), size=32, crop="none"))
    assert image[0, 4:-4].max() < 0.05


@pytest.mark.parametrize("seed", range(4))
def test_the_head_box_holds_the_head_and_ignores_the_headrest(seed: int) -> None:
    alone, on_table = (make_phantom(seed=seed, shape=(3, 256, 256), table=table) for table in (False, True))
    for bare, resting in zip(alone.hounsfield, on_table.hounsfield, strict=True):
        box = head_box(resting, margin=0.06)
        rows, columns = np.nonzero(bare > -150)
        assert box.top <= rows.min()
        assert rows.max() < box.top + box.side
        assert box.left <= columns.min()
        assert columns.max() < box.left + box.side
        assert box.side < 1.3 * max(np.ptp(rows), np.ptp(columns))
        assert box == head_box(bare, margin=0.06)


def test_the_head_is_the_largest_of_the_dense_regions() -> None:
    hounsfield = blocks((slice(20, 80), slice(40, 88)), (slice(96, 120), slice(4, 28)))
    assert head_box(hounsfield, margin=0) == Box(top=20, left=34, side=60)


def test_the_margin_is_added_on_each_side() -> None:
    hounsfield = blocks((slice(40, 80), slice(40, 80)))
    assert head_box(hounsfield, margin=0.1) == Box(top=36, left=36, side=48)


def test_a_head_at_the_edge_gets_a_box_past_the_image_and_air_there() -> None:
    volume = volume_of(blocks((slice(0, 80), slice(0, 60)))[None])
    preprocessing = Preprocessing(size=32, margin=0.1)
    box = slice_box(volume, 0, preprocessing)
    assert box.top < 0
    assert box.left < 0
    image = model_input(volume, 0, preprocessing)
    assert image[:, 0].max() == 0
    assert image[0, 16, 16] == pytest.approx(0.5)


@pytest.mark.parametrize(
    "hounsfield",
    [
        pytest.param(blocks(shape=(64, 96)), id="air"),
        pytest.param(blocks((slice(30, 38), slice(30, 38)), shape=(64, 96)), id="a cable"),
        pytest.param(blocks(shape=(64, 96), hu=-1000)[:3, :5], id="a few pixels"),
    ],
)
def test_without_a_head_the_whole_slice_is_taken(hounsfield: NDArray[np.int16]) -> None:
    box = head_box(hounsfield, margin=0.5)
    rows, columns = hounsfield.shape
    assert box.side == max(rows, columns)
    assert (box.top, box.left) == ((rows - box.side) // 2, (columns - box.side) // 2)


def test_without_cropping_a_slice_is_padded_to_a_square_with_air() -> None:
    image = model_input(volume_of(np.full((1, 64, 32), 80, dtype=np.int16)), 0, WHOLE)
    assert image[0, :, 10:22].min() == pytest.approx(1)
    assert image[0, :, :6].max() == 0
    assert image[0, :, -6:].max() == 0


def rising(slices: int) -> NDArray[np.int16]:
    """Slice ``i`` is everywhere ``10 i`` HU."""
    return np.broadcast_to((10 * np.arange(slices, dtype=np.int16))[:, None, None], (slices, 32, 32)).copy()


def shown_hu(image: NDArray[np.float32], channel: int = 0) -> float:
    """HU that a channel of the brain window shows."""
    return 80 * float(image[channel].mean())


BRAIN_ALONE = Preprocessing(windows=(BRAIN,), size=32, crop="none", slab_mm=5.0)


def test_thin_slices_are_averaged_to_the_slab() -> None:
    hounsfield = rising(9)
    hounsfield[4] += 5  # 20, 30, 45, 50, 60 HU around slice 4
    assert shown_hu(model_input(volume_of(hounsfield, spacing_mm=1.0), 4, BRAIN_ALONE)) == pytest.approx(41, abs=1e-3)


def test_a_slab_at_the_end_of_the_series_is_of_the_slices_there_are() -> None:
    assert shown_hu(model_input(volume_of(rising(9), spacing_mm=1.0), 0, BRAIN_ALONE)) == pytest.approx(10, abs=1e-3)


@pytest.mark.parametrize("spacing_mm", [None, 2.6, 5.0, 10.0])
def test_thick_slices_and_those_of_unknown_spacing_are_left_alone(spacing_mm: float | None) -> None:
    hounsfield = rising(5)
    hounsfield[2] = 33
    image = model_input(volume_of(hounsfield, spacing_mm=spacing_mm), 2, BRAIN_ALONE)
    assert shown_hu(image) == pytest.approx(33, abs=1e-3)


def test_without_a_slab_thin_slices_are_left_alone() -> None:
    hounsfield = rising(5)
    hounsfield[2] = 33
    thin = Preprocessing(windows=(BRAIN,), size=32, crop="none", slab_mm=None)
    assert shown_hu(model_input(volume_of(hounsfield, spacing_mm=1.0), 2, thin)) == pytest.approx(33, abs=1e-3)


@pytest.mark.parametrize(("index", "expected"), [(0, (0, 0, 10)), (1, (0, 10, 20)), (3, (20, 30, 30))])
def test_neighbours_run_from_below_to_above_and_the_end_slices_repeat(index: int, expected: tuple[int, ...]) -> None:
    preprocessing = Preprocessing(windows=(BRAIN,), size=32, crop="none", neighbours=1)
    image = model_input(volume_of(rising(4)), index, preprocessing)
    assert [shown_hu(image, channel) for channel in range(3)] == pytest.approx(list(expected), abs=1e-3)


def test_neighbours_of_thin_slices_are_the_slabs_below_and_above() -> None:
    preprocessing = Preprocessing(windows=(BRAIN,), size=32, crop="none", neighbours=1, slab_mm=3.0)
    image = model_input(volume_of(rising(9), spacing_mm=1.0), 4, preprocessing)
    assert [shown_hu(image, channel) for channel in range(3)] == pytest.approx([10, 40, 70], abs=1e-3)
    at_the_end = model_input(volume_of(rising(9), spacing_mm=1.0), 8, preprocessing)
    assert [shown_hu(at_the_end, channel) for channel in range(3)] == pytest.approx([50, 75, 75], abs=1e-3)


def test_within_a_neighbour_channels_run_over_the_windows() -> None:
    preprocessing = Preprocessing(windows=(BRAIN, SUBDURAL), size=32, crop="none", neighbours=1)
    volume = volume_of(rising(3))
    slices = [windowed(np.full((32, 32), hu, dtype=np.float32), preprocessing) for hu in (0, 10, 20)]
    assert np.allclose(model_input(volume, 1, preprocessing), np.concatenate(slices), atol=1e-5)


def test_neighbours_are_cut_by_the_box_of_the_slice_itself() -> None:
    volume = volume_of(np.stack([blocks((slice(0, 40), slice(0, 40))), blocks((slice(60, 120), slice(60, 120)))]))
    image = model_input(volume, 1, Preprocessing(windows=(BRAIN,), size=32, neighbours=1))
    assert image[0].max() == 0  # the lower slice has air where the middle one has the head
    assert image[1, 16, 16] == pytest.approx(0.5)


@pytest.mark.parametrize("index", [-1, 3])
def test_a_slice_that_is_not_there_is_refused(index: int) -> None:
    with pytest.raises(IndexError, match=f"slice {index} of a volume of 3"):
        model_input(volume_of(rising(3)), index, WHOLE)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"windows": ()}, "at least one window"),
        ({"size": 8}, "16 to 2048 pixels, got 8"),
        ({"size": 4096}, "16 to 2048 pixels, got 4096"),
        ({"crop": "skull"}, "crop must be one of none, head, got skull"),
        ({"outside": "water"}, "outside must be one of kept, air, got water"),
        ({"margin": -0.1}, "margin must be 0 to 1"),
        ({"margin": 1.1}, "margin must be 0 to 1"),
        ({"neighbours": -1}, "neighbours 0 to 5"),
        ({"neighbours": 6}, "neighbours 0 to 5"),
        ({"slab_mm": 0.0}, "above 0 and at most 20 mm"),
        ({"slab_mm": 25.0}, "above 0 and at most 20 mm"),
    ],
)
def test_settings_that_no_slice_could_pass_are_refused(changes: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Preprocessing(**changes)  # type: ignore[arg-type]


def test_json_with_other_keys_is_refused() -> None:
    plain = Preprocessing().to_json()
    with pytest.raises(ValueError, match="exactly the keys"):
        Preprocessing.from_json({**plain, "zoom": 2})
    del plain["slab_mm"]
    with pytest.raises(ValueError, match="exactly the keys"):
        Preprocessing.from_json(plain)


def test_the_default_windows_are_those_of_the_paper() -> None:
    assert Preprocessing().windows == (BRAIN, SUBDURAL, BONE)
    assert Preprocessing(neighbours=1).channels == 9


def test_settings_of_earlier_versions_keep_what_lies_beside_the_head() -> None:
    stored = Preprocessing().to_json()
    del stored["outside"]
    assert Preprocessing.from_json(stored) == Preprocessing(outside="kept")
