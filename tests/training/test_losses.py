"""The loss by hand: weighted scores, maps that learn types only where an outline has one, and Dice of `any`."""

import math

import pytest
import torch
from torch import Tensor

from hemoscope.models.network import Output
from hemoscope.training.losses import LossConfig, loss_parts

ONLY_ANY = (1.0, 0.0, 0.0, 0.0, 0.0, 0.0)
SUBDURAL_AND_ANY = (1.0, 0.0, 0.0, 0.0, 0.0, 1.0)


def parts(
    *,
    logits: Tensor | None = None,
    maps: Tensor | None = None,
    labels: tuple[tuple[float, ...], ...] = ((0.0,) * 6,),
    outline: Tensor | None = None,
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
        torch.zeros(count, 8, 8) if outline is None else outline,
        torch.tensor(typed),
        config or LossConfig(),
    )


def quarter() -> Tensor:
    """A lesion that fills the upper left of four places."""
    outline = torch.zeros(1, 8, 8)
    outline[0, :4, :4] = 1
    return outline


def softplus(value: float) -> float:
    return math.log1p(math.exp(value))


def test_undecided_scores_cost_log_2_whatever_the_weights() -> None:
    assert float(parts()["scores"]) == pytest.approx(math.log(2))
    assert float(parts(labels=(SUBDURAL_AND_ANY,))["scores"]) == pytest.approx(math.log(2))


def test_any_weighs_as_much_as_two_types() -> None:
    """Weights 2, 1, 1, 1, 1, 1 over 7, as in equation 1 of the paper."""
    logits = torch.tensor([[3.0, 0, 0, 0, 0, -2.0]])
    expected = (2 * softplus(3) + 4 * math.log(2) + softplus(-2)) / 7
    assert float(parts(logits=logits)["scores"]) == pytest.approx(expected, rel=1e-6)


def test_scores_are_averaged_over_the_batch() -> None:
    logits = torch.tensor([[3.0] * 6, [-1.0] * 6])
    both = float(parts(logits=logits, labels=((0.0,) * 6,) * 2, typed=(1.0, 1.0))["scores"])
    assert both == pytest.approx((softplus(3) + softplus(-1)) / 2, rel=1e-6)


def test_the_map_of_a_label_learns_the_outline_where_the_label_is_positive() -> None:
    """One place of four is positive, weighted 5, in the maps of `any` and subdural; the others learn none."""
    maps = torch.full((1, 6, 2, 2), -1.0)
    found = float(parts(maps=maps, labels=(SUBDURAL_AND_ANY,), outline=quarter())["map"])
    carrying = (5 * softplus(1) + 3 * softplus(-1)) / 4
    assert found == pytest.approx((2 * carrying + 4 * softplus(-1)) / 6, rel=1e-6)


def test_without_one_type_only_the_any_map_learns_the_outline() -> None:
    maps = torch.full((1, 6, 2, 2), -1.0, requires_grad=True)
    part = parts(maps=maps, labels=((1.0, 1.0, 0.0, 0.0, 0.0, 1.0),), outline=quarter(), typed=(0.0,))["map"]
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
    outline = torch.zeros(1, 8, 8)
    outline[0, 0, :4] = 1
    outline[0, 1, : pixels - 4] = 1  # of the 16 pixels of one place
    maps = torch.zeros(1, 6, 2, 2, requires_grad=True)
    parts(maps=maps, labels=(ONLY_ANY,), outline=outline)["map"].backward()
    assert maps.grad is not None
    assert (maps.grad[0, 0, 0, 0] < 0) == bool(positive)


def test_dice_by_hand() -> None:
    """Probabilities one half everywhere, one place of four positive: 1 - (2 * 0.5 + 1) / (2 + 1 + 1)."""
    found = float(parts(labels=(ONLY_ANY,), outline=quarter(), config=LossConfig(dice=1.0))["dice"])
    assert found == pytest.approx(0.5)


def test_dice_vanishes_for_the_right_map_and_for_nothing_found_in_nothing() -> None:
    right = torch.full((1, 6, 2, 2), -30.0)
    assert float(parts(maps=right)["dice"]) == pytest.approx(0, abs=1e-6)
    right[0, 0, 0, 0] = 30
    assert float(parts(maps=right, labels=(ONLY_ANY,), outline=quarter())["dice"]) == pytest.approx(0, abs=1e-6)


def test_dice_looks_at_the_any_map_alone() -> None:
    maps = torch.zeros(1, 6, 2, 2, requires_grad=True)
    parts(maps=maps, labels=(SUBDURAL_AND_ANY,), outline=quarter())["dice"].backward()
    assert maps.grad is not None
    assert maps.grad[0, 1:].abs().max() == 0


def test_weights_scale_their_parts() -> None:
    plain = parts(labels=(ONLY_ANY,), outline=quarter())
    doubled = parts(labels=(ONLY_ANY,), outline=quarter(), config=LossConfig(map=2.0, dice=1.0))
    assert float(doubled["map"]) == pytest.approx(2 * float(plain["map"]))
    assert float(doubled["dice"]) == pytest.approx(2 * float(plain["dice"]))
    assert float(doubled["scores"]) == float(plain["scores"])
