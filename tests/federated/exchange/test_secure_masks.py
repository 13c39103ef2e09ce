"""Masks depend on every bit of their key, and both ends of Flower's protocol draw the same."""

from importlib import import_module

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("flwr", reason="needs the extra: make setup-federated")

from flwr.common.secure_aggregation.secaggplus_utils import pseudo_rand_gen

from hemoscope.errors import FederationError
from hemoscope.federated import flower_internals
from hemoscope.federated.exchange.secure_masks import mask_values, strengthen_masks

KEY, OTHER = bytes(32), b"\1\0\0\0" * 2 + bytes(24)  # the exclusive or of their words is the same
SHAPES = [(1,), (500,)]


def test_keys_that_flower_confuses_make_different_masks_here() -> None:
    confused = pseudo_rand_gen(KEY, 1 << 40, SHAPES), pseudo_rand_gen(OTHER, 1 << 40, SHAPES)
    assert all(np.array_equal(one, other) for one, other in zip(*confused, strict=True))  # why we bring our own
    assert not np.array_equal(mask_values(KEY, 1 << 40, SHAPES)[1], mask_values(OTHER, 1 << 40, SHAPES)[1])


@given(key=st.binary(min_size=1, max_size=64), power=st.integers(1, 62), sizes=st.lists(st.integers(0, 50), min_size=1))
def test_masks_are_the_same_for_the_same_key_and_below_the_modulus(key: bytes, power: int, sizes: list[int]) -> None:
    shapes = [(size,) for size in sizes]
    first, second = mask_values(key, 1 << power, shapes), mask_values(key, 1 << power, shapes)
    for one, other, shape in zip(first, second, shapes, strict=True):
        assert one.shape == shape
        assert one.dtype == np.int64
        assert np.array_equal(one, other)
        assert ((one >= 0) & (one < 1 << power)).all()


def test_masks_are_the_stream_of_chacha20() -> None:
    """RFC 8439 has no vector for this key; the first block of the all-zero key and nonce is its A.1 vector 1."""
    import hashlib
    from unittest.mock import patch

    with patch.object(hashlib, "sha256") as sha:
        sha.return_value.digest.return_value = bytes(32)
        (values,) = mask_values(b"", 1 << 62, [(2,)])
    expected = int.from_bytes(bytes.fromhex("76b8e0ada0f13d90"), "little") & ((1 << 62) - 1)
    assert int(values[0]) == expected


@pytest.mark.parametrize("modulus", [0, 1, 3, (1 << 40) - 1, 1 << 63])
def test_a_modulus_that_is_no_power_of_two_is_refused(modulus: int) -> None:
    with pytest.raises(FederationError, match="power of two"):
        mask_values(KEY, modulus, SHAPES)


def test_both_ends_of_the_protocol_draw_these_masks() -> None:
    strengthen_masks()
    ends = [import_module(name) for name in flower_internals.MASK_MODULES]
    assert {end.pseudo_rand_gen for end in ends} == {mask_values}


def test_a_flower_that_draws_otherwise_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flower_internals, "_MASK_GENERATOR", "another_name")
    with pytest.raises(FederationError, match="another_name"):
        strengthen_masks()
