"""Weights and checkpoints: any bit that flips is named, or changes nothing."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError
from safetensors.torch import save_file

from hemoscope.checksums import ChecksumError
from hemoscope.errors import TrainingError
from hemoscope.training.checkpoint_io import SafeCheckpointIO
from hemoscope.training.models.checkpoint import load_weights, save_weights
from hemoscope.training.tensor_files import load_tensors, save_tensors

TENSORS = {
    "weight": torch.arange(12, dtype=torch.float32).reshape(3, 4),
    "half": torch.tensor([1.5, -2.0], dtype=torch.bfloat16),
    "count": torch.tensor(7),
    "none": torch.zeros(0),
}
STATE = {"state_dict": TENSORS, "epoch": 3, "rates": [0.125, 0.5], "moments": {0: (torch.ones(2), True)}}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(
        (one[name].dtype, one[name].tolist()) == (other[name].dtype, other[name].tolist()) for name in one
    )


def flip(path: Path, data: st.DataObject) -> None:
    content = bytearray(path.read_bytes())
    bit = data.draw(st.integers(0, 8 * len(content) - 1), label="bit")
    content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)


@given(data=st.data())
def test_any_bit_of_weights_that_flips_is_noticed(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("weights") / "weights.safetensors"
    save_tensors(TENSORS, path)
    assert same(load_tensors(path), TENSORS)
    flip(path, data)
    with pytest.raises((ChecksumError, SafetensorError)):
        load_tensors(path)


@settings(max_examples=50)
@given(data=st.data())
@pytest.mark.parametrize("name", ["state.json", "tensors.safetensors", "SHA256SUMS"])
def test_any_bit_of_a_checkpoint_that_flips_is_named(
    tmp_path_factory: pytest.TempPathFactory, name: str, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("run") / "last.ckpt"
    SafeCheckpointIO().save_checkpoint(STATE, folder)
    assert same(SafeCheckpointIO().load_checkpoint(folder)["state_dict"], TENSORS)
    flip(folder / name, data)
    with pytest.raises(TrainingError, match=r"checkpoint last.ckpt cannot be read \(.*SHA256SUMS\)\. Delete it"):
        SafeCheckpointIO().load_checkpoint(folder)


def test_damaged_weights_are_named_with_what_to_do(tmp_path: Path) -> None:
    network = torch.nn.Linear(3, 2)
    path = tmp_path / "weights.safetensors"
    save_weights(network, path)
    load_weights(network, path)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(TrainingError, match=r"weights.safetensors: its checksum is wrong: it is damaged. Copy it"):
        load_weights(network, path)


def unchecked_weights(folder: Path) -> dict[str, torch.Tensor]:
    save_file(TENSORS, folder / "weights.safetensors")
    return load_tensors(folder / "weights.safetensors")


def unchecked_checkpoint(folder: Path) -> dict[str, torch.Tensor]:
    SafeCheckpointIO().save_checkpoint(STATE, folder / "last.ckpt")
    (folder / "last.ckpt" / "SHA256SUMS").unlink()
    return SafeCheckpointIO().load_checkpoint(folder / "last.ckpt")["state_dict"]


@pytest.mark.parametrize("load", [unchecked_weights, unchecked_checkpoint])
def test_files_of_an_earlier_version_are_read_with_a_warning(
    tmp_path: Path, load: Callable[[Path], dict[str, torch.Tensor]], caplog: pytest.LogCaptureFixture
) -> None:
    assert same(load(tmp_path), TENSORS)
    assert "has no checksums, as an earlier version wrote it" in caplog.text


def test_weights_of_other_programs_are_read_without_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "model.safetensors"
    save_file(TENSORS, path, metadata={"format": "pt"})
    assert same(load_tensors(path, of_others=True), TENSORS)
    assert caplog.text == ""
    with pytest.raises(ChecksumError, match="other metadata than a checksum"):
        load_tensors(path)
