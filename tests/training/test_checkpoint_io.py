"""Checkpoints without pickle: restored bit for bit, written atomically, and refused if damaged."""

import pickletools
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hemoscope.errors import TrainingError
from hemoscope.training.checkpoint_io import SafeCheckpointIO, latest_checkpoint

plain = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8)
keys = st.integers() | st.text(max_size=5) | st.tuples(st.integers(), st.text(max_size=3))
tensors = st.builds(
    lambda shape, dtype, seed: torch.randint(-5, 6, shape, generator=torch.Generator().manual_seed(seed)).to(dtype),
    st.lists(st.integers(0, 3), max_size=3).map(tuple),
    st.sampled_from([torch.float32, torch.float64, torch.bfloat16, torch.int64, torch.bool, torch.uint8]),
    st.integers(0, 99),
)
states = st.recursive(
    plain | tensors,
    lambda inner: st.lists(inner, max_size=4) | st.lists(inner, max_size=4).map(tuple) | st.dictionaries(keys, inner),
    max_leaves=12,
)


def same(one: Any, other: Any) -> bool:
    """Equal in type and value all the way down, tensors to the last bit."""
    if type(one) is not type(other):
        return False
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(a, b) for a, b in zip(one.values(), other.values(), strict=True))
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(same(a, b) for a, b in zip(one, other, strict=True))
    return bool(one == other)


def round_trip(state: dict[Any, Any], folder: Path) -> dict[str, Any]:
    SafeCheckpointIO().save_checkpoint(state, folder / "last.ckpt")
    return SafeCheckpointIO().load_checkpoint(folder / "last.ckpt")


@settings(max_examples=40)
@given(st.dictionaries(st.text(max_size=5), states, max_size=4))
def test_any_nested_state_comes_back_bit_for_bit(
    tmp_path_factory: pytest.TempPathFactory, state: dict[str, Any]
) -> None:
    assert same(round_trip(state, tmp_path_factory.mktemp("checkpoint")), state)


def test_an_optimisers_state_resumes_as_if_never_stopped(tmp_path: Path) -> None:
    def optimiser() -> tuple[torch.nn.Linear, torch.optim.AdamW]:
        torch.manual_seed(1)
        layer = torch.nn.Linear(3, 2)
        return layer, torch.optim.AdamW(layer.parameters(), lr=0.1)

    def step(layer: torch.nn.Linear, adamw: torch.optim.AdamW) -> None:
        adamw.zero_grad()
        layer(torch.ones(1, 3)).sum().backward()
        adamw.step()

    layer, adamw = optimiser()
    step(layer, adamw)
    state = round_trip({"layer": layer.state_dict(), "adamw": adamw.state_dict()}, tmp_path)
    step(layer, adamw)
    other, resumed = optimiser()
    other.load_state_dict(state["layer"])
    resumed.load_state_dict(state["adamw"])
    step(other, resumed)
    assert same(dict(other.state_dict()), dict(layer.state_dict()))
    assert same(resumed.state_dict(), adamw.state_dict())


def test_tensors_that_share_memory_or_are_views_are_written_apart(tmp_path: Path) -> None:
    whole = torch.arange(12.0).reshape(3, 4)
    state = {"whole": whole, "view": whole.T, "row": whole[1], "again": whole, "grown": whole[0].requires_grad_()}
    restored = round_trip(state, tmp_path)
    assert torch.equal(restored["view"], whole.T)
    restored["whole"][0, 0] = 99
    assert float(restored["again"][0, 0]) == 0
    assert not restored["grown"].requires_grad


def is_pickle(content: bytes) -> bool:
    try:
        return any(opcode.name == "STOP" for opcode, _, _ in pickletools.genops(content))
    except ValueError:
        return False


def test_no_file_of_a_checkpoint_is_a_pickle(tmp_path: Path) -> None:
    round_trip({"weights": torch.rand(3, 3), "epoch": 4, "names": ("a", "b")}, tmp_path)
    files = sorted(path.name for path in (tmp_path / "last.ckpt").iterdir())
    assert files == ["SHA256SUMS", "state.json", "tensors.safetensors"]
    assert not [name for name in files if is_pickle((tmp_path / "last.ckpt" / name).read_bytes())]


@pytest.mark.parametrize("value", [object(), {1, 2}, b"bytes", 1j, print, Path("a")])
def test_anything_but_tensors_and_plain_values_is_refused_before_anything_is_written(
    tmp_path: Path, value: object
) -> None:
    with pytest.raises(TypeError, match=f"only tensors and plain values, got {type(value).__name__}"):
        SafeCheckpointIO().save_checkpoint({"deep": [{"down": value}]}, tmp_path / "last.ckpt")
    assert not list(tmp_path.iterdir())


def test_a_newer_checkpoint_replaces_the_older_one(tmp_path: Path) -> None:
    round_trip({"epoch": 1, "extra": torch.ones(2)}, tmp_path)
    assert round_trip({"epoch": 2}, tmp_path) == {"epoch": 2}
    assert [path.name for path in tmp_path.iterdir()] == ["last.ckpt"]


def test_a_checkpoint_that_fails_half_way_leaves_the_older_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    round_trip({"epoch": 1}, tmp_path)

    def full_disk(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("hemoscope.training.checkpoint_io.save_file", full_disk)
    with pytest.raises(OSError, match="No space left"):
        SafeCheckpointIO().save_checkpoint({"epoch": 2}, tmp_path / "last.ckpt")
    monkeypatch.undo()
    assert SafeCheckpointIO().load_checkpoint(tmp_path / "last.ckpt") == {"epoch": 1}
    assert round_trip({"epoch": 3}, tmp_path) == {"epoch": 3}  # the half-written one is in nobody's way


@pytest.mark.parametrize("name", ["state.json", "tensors.safetensors"])
@pytest.mark.parametrize("damage", ["absent", "cut", "empty"])
def test_a_damaged_checkpoint_is_refused_with_the_remedy(tmp_path: Path, name: str, damage: str) -> None:
    round_trip({"weights": torch.rand(8, 8), "epoch": 4}, tmp_path)
    path = tmp_path / "last.ckpt" / name
    content = path.read_bytes()
    path.unlink() if damage == "absent" else path.write_bytes(content[: len(content) // 2 if damage == "cut" else 0])
    with pytest.raises(TrainingError, match=r"checkpoint last\.ckpt cannot be read .*Delete it") as caught:
        SafeCheckpointIO().load_checkpoint(tmp_path / "last.ckpt")
    assert str(tmp_path) not in str(caught.value)


def test_a_state_that_names_tensors_it_does_not_hold_is_refused(tmp_path: Path) -> None:
    round_trip({"weights": torch.ones(2)}, tmp_path)
    path = tmp_path / "last.ckpt" / "state.json"
    path.write_text(path.read_text().replace('"$tensor": "0"', '"$tensor": "7"'))
    with pytest.raises(TrainingError, match="cannot be read"):
        SafeCheckpointIO().load_checkpoint(tmp_path / "last.ckpt")


def test_a_checkpoint_can_be_removed_twice(tmp_path: Path) -> None:
    round_trip({"epoch": 1}, tmp_path)
    for _ in range(2):
        SafeCheckpointIO().remove_checkpoint(tmp_path / "last.ckpt")
    assert not list(tmp_path.iterdir())


def test_a_kill_between_two_checkpoints_leaves_the_one_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    last = tmp_path / "last.ckpt"
    assert latest_checkpoint(last) is None
    SafeCheckpointIO().save_checkpoint({"epoch": 1}, last)
    move = Path.replace

    def killed(self: Path, target: Path) -> Path:
        if self.name.endswith(".part"):
            raise KeyboardInterrupt
        return move(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            SafeCheckpointIO().save_checkpoint({"epoch": 2}, last)
    found = latest_checkpoint(last)
    assert found is not None
    assert SafeCheckpointIO().load_checkpoint(found) == {"epoch": 1}
    SafeCheckpointIO().save_checkpoint({"epoch": 2}, last)
    assert latest_checkpoint(last) == last
    assert [path.name for path in tmp_path.iterdir()] == ["last.ckpt"]
