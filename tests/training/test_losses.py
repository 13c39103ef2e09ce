"""The loss by hand: weighted scores, maps of types only if the mask has one type, and Dice of `any`."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from torch import Tensor
from torchvision.ops import sigmoid_focal_loss

from hemoscope.errors import ConfigError
from hemoscope.training.losses import LossConfig, loss_parts, score_loss
from hemoscope.training.models.network import Output

ONLY_ANY = (1.0, 0.0, 0.0, 0.0, 0.0, 0.0)
SUBDURAL_AND_ANY = (1.0, 0.0, 0.0, 0.0, 0.0, 1.0)


def parts(
    *,
    logits: Tensor | None = None,
    maps: Tensor | None = None,
    labels: tuple[tuple[float, ...], ...] = ((0.0,) * 6,),
    mask: Tensor | None = None,
    typed: tuple[float, ...] = (1.0,),
    config: LossConfig | None = None,
) -> dict[str, Tensor]:
    count = len(labels)
    return loss_parts(
        Output(
            torch.zeros(count, 6) if logits is None else logits,
            torch.zeros(count, 6, 2, 2) if maps is None else maps,
            torch.zeros(count, 1),
        ),
        torch.tensor(labels),
        torch.zeros(count, 8, 8) if mask is None else mask,
        torch.tensor(typed),
        config or LossConfig(),
    )


def quarter() -> Tensor:
    """A lesion that fills the upper left of four places."""
    mask = torch.zeros(1, 8, 8)
    mask[0, :4, :4] = 1
    return mask


def softplus(value: float) -> float:
    return math.log1p(math.exp(value))


def test_undecided_scores_cost_log_2_whatever_the_weights() -> None:
    assert float(parts()["scores"]) == pytest.approx(math.log(2))
    assert float(parts(labels=(SUBDURAL_AND_ANY,))["scores"]) == pytest.approx(math.log(2))


def test_any_weighs_as_much_as_two_types() -> None:
    """Weights 2, 1, 1, 1, 1, 1 over 7: a weighted mean."""
    logits = torch.tensor([[3.0, 0, 0, 0, 0, -2.0]])
    expected = (2 * softplus(3) + 4 * math.log(2) + softplus(-2)) / 7
    assert float(parts(logits=logits)["scores"]) == pytest.approx(expected, rel=1e-6)


def test_dividing_by_labels_is_the_sum_of_weighted_terms_over_the_number_of_known_labels() -> None:
    labels = [[1, UNKNOWN, 0, 0, 0, 0], [UNKNOWN] * 5 + [0]]
    found = score([[1.0, 9.0, -2.0, 0, 0, 0.5], [9.0] * 5 + [-1.0]], labels, divide_by="labels")
    terms = [2 * softplus(-1), softplus(-2), softplus(0), softplus(0), softplus(0.5), softplus(-1)]
    assert found == pytest.approx(sum(terms) / 6, rel=1e-6)
    assert score([[0.0] * 6], [[0.0] * 6], divide_by="labels") == pytest.approx(7 / 6 * math.log(2))


def test_scores_are_averaged_over_the_batch() -> None:
    logits = torch.tensor([[3.0] * 6, [-1.0] * 6])
    both = float(parts(logits=logits, labels=((0.0,) * 6,) * 2, typed=(1.0, 1.0))["scores"])
    assert both == pytest.approx((softplus(3) + softplus(-1)) / 2, rel=1e-6)


def test_the_map_of_a_label_is_trained_on_the_mask_where_the_label_is_positive() -> None:
    """One place of four is positive, weighted 5, in the maps of `any` and subdural; the others learn none."""
    maps = torch.full((1, 6, 2, 2), -1.0)
    found = float(parts(maps=maps, labels=(SUBDURAL_AND_ANY,), mask=quarter())["map"])
    carrying = (5 * softplus(1) + 3 * softplus(-1)) / 4
    assert found == pytest.approx((2 * carrying + 4 * softplus(-1)) / 6, rel=1e-6)


def test_without_one_type_only_the_any_map_is_trained_on_the_mask() -> None:
    maps = torch.full((1, 6, 2, 2), -1.0, requires_grad=True)
    part = parts(maps=maps, labels=((1.0, 1.0, 0.0, 0.0, 0.0, 1.0),), mask=quarter(), typed=(0.0,))["map"]
    assert float(part.detach()) == pytest.approx((5 * softplus(1) + 3 * softplus(-1)) / 4, rel=1e-6)
    part.backward()
    assert maps.grad is not None
    assert maps.grad[0, 1:].abs().max() == 0
    assert maps.grad[0, 0].abs().min() > 0


def test_untyped_slices_do_not_thin_out_the_typed_ones() -> None:
    """The mean runs over the maps that count: 6 of the typed slice and 1 of the other."""
    maps = torch.stack([torch.full((6, 2, 2), -1.0), torch.full((6, 2, 2), 2.0)])
    found = float(parts(maps=maps, labels=((0.0,) * 6,) * 2, typed=(1.0, 0.0))["map"])
    assert found == pytest.approx((6 * softplus(-1) + softplus(2)) / 7, rel=1e-6)


@pytest.mark.parametrize(("pixels", "positive"), [(4, 0.0), (5, 1.0)])
def test_a_place_is_positive_where_more_than_three_tenths_of_it_bleed(pixels: int, positive: float) -> None:
    mask = torch.zeros(1, 8, 8)
    mask[0, 0, :4] = 1
    mask[0, 1, : pixels - 4] = 1  # of the 16 pixels of one place
    maps = torch.zeros(1, 6, 2, 2, requires_grad=True)
    parts(maps=maps, labels=(ONLY_ANY,), mask=mask)["map"].backward()
    assert maps.grad is not None
    assert (maps.grad[0, 0, 0, 0] < 0) == bool(positive)


@given(arrays(np.float32, (2, 8, 8), elements=st.sampled_from([0.0, 0.4, 1.0])))
def test_a_target_of_shares_is_never_empty_beside_a_lesion_and_contains_what_is_covered(
    mask: NDArray[np.float32],
) -> None:
    """The Dice of `any` vanishes for a map that equals its target: read off the losses alone."""
    covered = torch.from_numpy(mask).reshape(2, 2, 4, 2, 4).mean((2, 4))
    target = (covered / 0.3).clamp(max=1)
    for one, share in zip(target, covered, strict=True):
        if share.max() > 0:
            one[share == share.max()] = 1
    maps = torch.logit(target.clamp(1e-6, 1 - 1e-6))[:, None].expand(2, 6, 2, 2)
    bleeds = ((1.0, 0, 0, 0, 0, 1.0),) * 2
    found = parts(
        maps=maps, labels=bleeds, mask=torch.from_numpy(mask), typed=(1.0, 1.0), config=LossConfig(map_target="share")
    )
    overlap, total = float((target**2).sum()), float(2 * target.sum())
    assert float(found["dice"]) == pytest.approx(0.5 * (1 - (2 * overlap + 1) / (total + 1)), abs=1e-4)
    assert not mask.any() or float(target.max()) == 1


def test_a_small_lesion_is_taught_to_a_map_by_its_share_only() -> None:
    mask = torch.zeros(1, 8, 8)
    mask[0, 0, 0] = 1
    there, nowhere = torch.full((1, 6, 2, 2), -8.0), torch.full((1, 6, 2, 2), -8.0)
    there[..., 0, 0] = 8
    costs = {
        target: [
            float(parts(maps=maps, labels=(SUBDURAL_AND_ANY,), mask=mask, config=LossConfig(map_target=target))["map"])
            for maps in (there, nowhere)
        ]
        for target in ("covered", "share")
    }
    assert costs["share"][0] < costs["share"][1] - 1
    assert costs["covered"][1] < costs["covered"][0] - 1


def test_dice_by_hand() -> None:
    """Probabilities one half everywhere, one place of four positive: 1 - (2 * 0.5 + 1) / (2 + 1 + 1)."""
    found = float(parts(labels=(ONLY_ANY,), mask=quarter(), config=LossConfig(dice=1.0))["dice"])
    assert found == pytest.approx(0.5)


def test_dice_vanishes_for_the_right_map_and_for_nothing_found_in_nothing() -> None:
    right = torch.full((1, 6, 2, 2), -30.0)
    assert float(parts(maps=right)["dice"]) == pytest.approx(0, abs=1e-6)
    right[0, 0, 0, 0] = 30
    assert float(parts(maps=right, labels=(ONLY_ANY,), mask=quarter())["dice"]) == pytest.approx(0, abs=1e-6)


def test_dice_looks_at_the_any_map_alone() -> None:
    maps = torch.zeros(1, 6, 2, 2, requires_grad=True)
    parts(maps=maps, labels=(SUBDURAL_AND_ANY,), mask=quarter())["dice"].backward()
    assert maps.grad is not None
    assert maps.grad[0, 1:].abs().max() == 0


def test_weights_scale_their_parts() -> None:
    plain = parts(labels=(ONLY_ANY,), mask=quarter())
    doubled = parts(labels=(ONLY_ANY,), mask=quarter(), config=LossConfig(map=2.0, dice=1.0))
    assert float(doubled["map"]) == pytest.approx(2 * float(plain["map"]))
    assert float(doubled["dice"]) == pytest.approx(2 * float(plain["dice"]))
    assert float(doubled["scores"]) == float(plain["scores"])


def score(logits: list[list[float]], labels: list[list[float]], **options: object) -> float:
    config = LossConfig(**options)  # type: ignore[arg-type]
    return float(score_loss(torch.tensor(logits), torch.tensor(labels), config))


UNKNOWN = math.nan


def test_unknown_labels_count_neither_above_nor_below_the_line() -> None:
    """Known: `any` of the first slice (weight 2) and subdural of the second (weight 1)."""
    labels = [[1, *[UNKNOWN] * 5], [*[UNKNOWN] * 5, 0]]
    found = score([[1.0] + [9.0] * 5, [9.0] * 5 + [-2.0]], labels)
    assert found == pytest.approx((2 * softplus(-1) + softplus(-2)) / 3, rel=1e-6)


def test_nothing_known_costs_nothing_and_moves_nothing() -> None:
    logits = torch.ones(2, 6, requires_grad=True)
    maps = torch.ones(2, 6, 2, 2, requires_grad=True)
    labels = torch.full((2, 6), UNKNOWN)
    found = loss_parts(
        Output(logits, maps, torch.zeros(2, 1)), labels, torch.ones(2, 8, 8), torch.ones(2), LossConfig()
    )
    total = torch.stack(list(found.values())).sum()
    total.backward()
    assert float(total.detach()) == 0
    assert logits.grad is not None
    assert maps.grad is not None
    assert not logits.grad.any()
    assert not maps.grad.any()


def test_unknown_labels_get_no_gradient() -> None:
    logits = torch.zeros(1, 6, requires_grad=True)
    score_loss(logits, torch.tensor([[1.0, UNKNOWN, 0.0, UNKNOWN, 0.0, 1.0]]), LossConfig()).backward()
    assert logits.grad is not None
    assert logits.grad[0].ne(0).tolist() == [True, False, True, False, True, True]


def test_both_sides_of_a_label_can_weigh_differently() -> None:
    labels = [[1.0, 0, 0, 0, 0, 1.0]]
    found = score(
        [[-1.0, 2.0, 0, 0, 0, 3.0]], labels, positive=(4.0, 1, 1, 1, 1, 0.5), negative=(1.0, 3.0, 1.0, 1.0, 1.0, 1.0)
    )
    expected = 2 * 4 * softplus(1) + 3 * softplus(2) + 3 * softplus(0) + 0.5 * softplus(-3)
    assert found == pytest.approx(expected / 7, rel=1e-6)


@pytest.mark.parametrize("gamma", [0.0, 1.0, 2.0, 5.0])
@pytest.mark.parametrize("weight", [1.0, 3.0])
def test_focal_loss_is_torchvisions(gamma: float, weight: float) -> None:
    """Torchvision's has one weight for both sides: half is taken, and given back."""
    logits = torch.linspace(-6, 6, 24).reshape(4, 6)
    labels = (torch.arange(24) % 3 == 0).float().reshape(4, 6)
    reference = 2 * sigmoid_focal_loss(logits, labels, alpha=0.5, gamma=gamma, reduction="mean")
    config = LossConfig(labels=(weight,) * 6, kind="focal", gamma=gamma)
    assert float(score_loss(logits, labels, config)) == pytest.approx(float(reference), rel=1e-5)


def test_focal_loss_keeps_its_digits_where_the_answer_is_all_but_certain() -> None:
    found = score([[-20.0] * 6], [[0.0] * 6], kind="focal", gamma=1.0)
    assert found == pytest.approx(math.exp(-20) * math.log1p(math.exp(-20)), rel=1e-4)


@given(
    labels=arrays(np.float64, (12, 6), elements=st.sampled_from([0.0, 1.0, UNKNOWN])),
)
def test_weights_of_prevalence_make_both_sides_of_every_label_equal(labels: NDArray[np.float64]) -> None:
    labels[:2] = [[0.0] * 6, [1.0] * 6]
    config = LossConfig(positive="prevalence", negative="prevalence").resolved(labels)
    positives, negatives = (labels == 1).sum(0), (labels == 0).sum(0)
    assert np.allclose(config.positive * positives, config.negative * negatives)
    assert np.allclose((config.positive * positives + config.negative * negatives) / (positives + negatives), 1)
    assert config.resolved(labels) == config


def test_one_side_alone_may_follow_prevalence() -> None:
    labels = np.array([[1.0] * 6, [0.0] * 6, [0.0] * 6, [0.0] * 6])
    config = LossConfig(positive="prevalence", negative=(0.5,) * 6).resolved(labels)
    assert config.positive == pytest.approx((2.0,) * 6)
    assert config.negative == (0.5,) * 6


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_weights_cannot_follow_the_prevalence_of_a_label_with_one_side(value: float) -> None:
    labels = np.array([[1.0] * 6, [0.0] * 6])
    labels[:, 1] = (value, UNKNOWN)
    with pytest.raises(ConfigError, match=r"epidural has no known positive or no known negative .* Give six numbers"):
        LossConfig(positive="prevalence").resolved(labels)


def test_maps_are_trained_only_where_the_mask_and_the_label_are_known() -> None:
    maps = torch.full((3, 6, 2, 2), -1.0, requires_grad=True)
    labels = torch.tensor([SUBDURAL_AND_ANY] * 3)
    labels[2, 5] = UNKNOWN
    found = loss_parts(
        Output(torch.zeros(3, 6), maps, torch.zeros(3, 1)),
        labels,
        quarter().expand(3, -1, -1),
        torch.ones(3),
        LossConfig(),
        mask_known=torch.tensor([1.0, 0.0, 1.0]),
    )
    carrying = (5 * softplus(1) + 3 * softplus(-1)) / 4
    assert float(found["map"].detach()) == pytest.approx((3 * carrying + 8 * softplus(-1)) / 11, rel=1e-6)
    (found["map"] + found["dice"]).backward()
    assert maps.grad is not None
    assert not maps.grad[1].any()
    assert not maps.grad[2, 5].any()
    assert maps.grad[2, 0].all()


def test_without_weights_the_maps_are_left_alone() -> None:
    assert parts(config=LossConfig(map=0.0, dice=0.0)).keys() == {"scores"}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"labels": (1.0,) * 5}, r"loss\.labels needs 6 weights in the order any, .*, got 5"),
        ({"labels": "prevalence"}, r"loss\.labels needs 6 weights in the order .* got 'prevalence'"),
        ({"positive": (1.0,) * 7}, r"loss\.positive needs 6 weights .*, or the word prevalence, got 7"),
        ({"negative": "often"}, r"loss\.negative needs 6 weights .*, or the word prevalence, got 'often'"),
        ({"labels": (0.0,) * 6}, r"loss\.labels: weights must not be negative, nor all zero"),
        ({"positive": (-1.0,) * 6}, r"loss\.positive: weights must not be negative"),
        ({"negative": (math.nan,) * 6}, r"loss\.negative: weights must not be negative"),
        ({"divide_by": "slices"}, r"loss\.divide_by must be one of weights, labels, got slices"),
        ({"kind": "hinge"}, r"loss\.kind must be one of bce, focal, got hinge"),
        ({"gamma": -1.0}, r"gamma, map, map_positive, dice must not be negative, got -1\.0"),
        ({"dice": math.inf}, r"must not be negative, got .*inf"),
    ],
)
def test_losses_that_could_not_be_minimised_are_refused(options: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        LossConfig(**options)  # type: ignore[arg-type]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_losses_are_summed_in_full_precision_whatever_the_network_computes_in(dtype: torch.dtype) -> None:
    torch.manual_seed(3)
    logits, maps = torch.randn(301, 6).to(dtype), torch.randn(301, 6, 2, 2).to(dtype)
    labels, mask = (torch.rand(301, 6) > 0.5).float(), (torch.rand(301, 8, 8) > 0.5).float()

    def found(logits: Tensor, maps: Tensor) -> dict[str, Tensor]:
        return loss_parts(Output(logits, maps, logits), labels, mask, torch.ones(301), LossConfig())

    half, full = found(logits, maps), found(logits.float(), maps.float())
    assert all(part.dtype == torch.float32 for part in half.values())
    assert {name: float(part) for name, part in half.items()} == {name: float(part) for name, part in full.items()}
