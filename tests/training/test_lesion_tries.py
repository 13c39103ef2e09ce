"""Several tries for a lesion: each slice that is asked to and has room gets one, and every one is seen."""

import zlib
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from hemoscope.data.cache import Cache
from hemoscope.errors import ConfigError
from hemoscope.inference.preprocess import Preprocessing
from hemoscope.labels import LABELS, SUBTYPES
from hemoscope.testing.phantom import make_phantom
from hemoscope.training import dataset as dataset_module
from hemoscope.training import stacked_lesions
from hemoscope.training.augment import AugmentConfig
from hemoscope.training.crops import Crops, load_crops
from hemoscope.training.dataset import SampleIndex, SamplingConfig, SliceDataset
from hemoscope.training.stacked_lesions import Shapes
from hemoscope.training.synthetic_lesions import Mask, inside_skull, paste_lesion

SIZE = 128
MakeDataset = Callable[[SamplingConfig], SliceDataset]


@pytest.fixture(scope="module")
def crops(tmp_path_factory: pytest.TempPathFactory, make_cache: Callable[..., Cache]) -> Crops:
    """Three slices without a bleed of one phantom, three that bleed of another, and one of air."""
    clean = make_phantom(seed=3, shape=(3, SIZE, SIZE))
    bleeding = make_phantom(seed=4, shape=(3, SIZE, SIZE), bleeds=frozenset(SUBTYPES))
    air = np.full((1, SIZE, SIZE), -1000, dtype=np.int16)
    images = np.concatenate([clean.hounsfield, bleeding.hounsfield, air])
    mask = np.concatenate([np.zeros((3, SIZE, SIZE), bool), bleeding.masks["any"], np.zeros((1, SIZE, SIZE), bool)])
    labels = [[0] * 6] * 3 + [[int(shown) for shown in one] for one in bleeding.slice_labels] + [[0] * 6]
    cache = make_cache(tmp_path_factory.mktemp("tries"), images, mask=mask, labels=labels)
    return load_crops(cache, list(cache.manifest["image_id"]), Preprocessing(size=SIZE))


@pytest.fixture
def make_dataset(crops: Crops) -> MakeDataset:
    return lambda sampling: SliceDataset(crops, Preprocessing(size=SIZE), AugmentConfig(), sampling, seed=1)


def share(slices: SliceDataset, row: int, draws: int = 60) -> float:
    return float(np.mean([float(slices[SampleIndex(row, 0, place)].labels[0]) for place in range(draws)]))


@pytest.mark.parametrize(("pasted", "made"), [(1.0, 0.0), (0.0, 1.0), (0.5, 0.5)])
def test_with_several_tries_nearly_every_slice_that_is_asked_to_gets_a_lesion(
    make_dataset: MakeDataset, pasted: float, made: float
) -> None:
    slices = make_dataset(SamplingConfig(pasted=pasted, made=made, tries=12, paste_lift=8.0))
    assert share(slices, 1) > 0.95


def test_more_tries_reach_the_asked_share_and_do_not_exceed_it(make_dataset: MakeDataset) -> None:
    one_try = SamplingConfig(pasted=0.25, made=0.25, paste_lift=8.0)
    once, often = (share(make_dataset(replace(one_try, tries=tries)), 1, draws=200) for tries in (1, 12))
    assert once < often
    assert often == pytest.approx(0.5, abs=0.11)  # three standard deviations of 200 draws


def test_a_slice_without_room_stays_normal_however_often_it_is_tried(make_dataset: MakeDataset) -> None:
    assert share(make_dataset(SamplingConfig(pasted=0.5, made=0.5, tries=12)), 6) == 0


def test_a_type_that_does_not_fit_is_replaced_by_one_that_does(
    make_dataset: MakeDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[str] = []
    original = stacked_lesions.synthesize_in_stack

    def only_subdural(stack: NDArray[np.float32], kind: str, *rest: object, **more: object) -> object:
        tried.append(kind)
        return original(stack, kind, *rest, **more) if kind == "subdural" else None  # type: ignore[arg-type]

    monkeypatch.setattr(dataset_module, "synthesize_in_stack", only_subdural)
    slices = make_dataset(SamplingConfig(pasted=0, made=1, tries=5))
    for place in range(10):
        tried.clear()
        sample = slices[SampleIndex(1, 0, place)]
        assert len(set(tried)) == len(tried)  # each type once before any is tried in another place
        if sample.labels[0]:
            assert sample.labels.tolist() == [float(label in ("any", "subdural")) for label in LABELS]


def test_a_sample_does_not_depend_on_what_was_drawn_before_it(make_dataset: MakeDataset) -> None:
    """The insides of skulls are kept; a slice that was seen before gives the same sample as one that was not."""
    sampling = SamplingConfig(pasted=0.5, made=0.5, tries=8, paste_lift=8.0, donor_lift=4.0)
    draws = [SampleIndex(row, 2, place) for place, row in enumerate([0, 1, 2, 6] * 4)]
    warm = make_dataset(sampling)
    for draw in reversed(draws):
        warm[draw]
    for draw in draws:
        assert all(torch.equal(a, b) for a, b in zip(warm[draw], make_dataset(sampling)[draw], strict=True))


def test_the_defaults_give_the_samples_of_earlier_versions(crops: Crops) -> None:
    """One try, every paste, every donor: the lesions of ``paste_lesion`` alone, with the same random numbers."""
    slices = SliceDataset(crops, Preprocessing(size=SIZE), AugmentConfig(), SamplingConfig(pasted=1, made=0), seed=1)
    for place in range(12):
        rng = np.random.default_rng([0, place])
        rng.random()
        donor = int(rng.choice(slices.donors))
        expected = paste_lesion(crops.stack(1)[0], crops.stack(donor)[0], crops.mask(donor) > 0, rng)
        found = slices.lesion(1, crops.stack(1), crops.labels[1], np.random.default_rng([0, place]))
        assert (found is None) == (expected is None)
        if found is not None and expected is not None:
            assert zlib.crc32(found[0].tobytes()) == zlib.crc32(expected[0].tobytes())


def bright(contrast: float) -> tuple[NDArray[np.float32], NDArray[np.float32], Mask]:
    """A head, and the same head with a bleed of some contrast as its donor."""
    head = np.array(make_phantom(seed=2, shape=(3, SIZE, SIZE)).hounsfield[1], dtype=np.float32)
    rows, columns = np.indices(head.shape)
    outline = np.hypot(rows - 48, columns - 80) < 8
    return head, np.where(outline, head + np.float32(contrast), head).astype(np.float32), outline


@pytest.mark.parametrize("contrast", [-20.0, 0.0])
def test_a_paste_that_is_not_seen_is_refused_if_it_is_tested(contrast: float) -> None:
    head, donor, outline = bright(contrast)
    kept = [paste_lesion(head, donor, outline, np.random.default_rng(seed), least_lift=8.0) for seed in range(20)]
    untested = [paste_lesion(head, donor, outline, np.random.default_rng(seed)) for seed in range(20)]
    assert sum(one is not None for one in untested) > 15
    for lesion in filter(None, kept):  # on CSF, brain is bright
        assert (lesion[0] - head)[lesion[1]].mean() >= 8
    assert sum(one is not None for one in kept) < 5


def test_a_bright_paste_passes_the_test_and_is_that_of_no_test() -> None:
    head, donor, outline = bright(30.0)
    inside = inside_skull(head)
    for seed in range(10):
        tested = paste_lesion(head, donor, outline, np.random.default_rng(seed), inside=inside, least_lift=8.0)
        plain = paste_lesion(head, donor, outline, np.random.default_rng(seed))
        assert tested is not None
        assert plain is not None
        assert np.array_equal(tested[0], plain[0])


@pytest.mark.parametrize("tries", [0, 101])
def test_a_number_of_tries_that_cannot_be_is_refused(tries: int) -> None:
    with pytest.raises(ConfigError, match="tries must be 1 to 100"):
        SamplingConfig(tries=tries)


def test_anatomical_lesions_are_made_where_the_skull_is_open(
    crops: Crops, make_dataset: MakeDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dataset_module, "inside_skull", lambda _: None)  # as where the ring of the skull is open
    labels = np.zeros(6, dtype=np.float32)

    def count(shapes: Shapes, pasted: float) -> int:
        slices = make_dataset(SamplingConfig(pasted=pasted, made=1 - pasted, tries=12, shapes=shapes))
        draws = (slices.lesion(1, crops.stack(1), labels, np.random.default_rng(seed)) for seed in range(5))
        return sum(one is not None for one in draws)

    assert count("anatomical", 0.0) == 5
    assert count("anatomical", 1.0) == 5
    assert count("simple", 0.0) == 0
