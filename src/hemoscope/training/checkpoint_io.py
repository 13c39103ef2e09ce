"""Lightning checkpoints without pickle: tensors in safetensors, everything else in JSON, checksums beside them."""

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io import CheckpointIO
from safetensors import SafetensorError
from safetensors.torch import load, save_file

from hemoscope.checksums import SUMS, ChecksumError, read_checked, read_sums, warn_unchecked, write_sums
from hemoscope.errors import TrainingError
from hemoscope.files import publish

_STATE, _TENSORS = "state.json", "tensors.safetensors"
_TENSOR, _TUPLE, _ITEMS = "$tensor", "$tuple", "$items"


class SafeCheckpointIO(CheckpointIO):
    """A checkpoint is a folder with ``state.json``, ``tensors.safetensors`` and ``SHA256SUMS``, written atomically."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        """Write a checkpoint. Raises TypeError for anything but tensors and plain values."""
        del storage_options
        tensors: dict[str, torch.Tensor] = {}
        state = _plain(checkpoint, tensors)
        folder = Path(path)
        part = folder.with_name(folder.name + ".part")
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        save_file(tensors, part / _TENSORS)
        (part / _STATE).write_text(json.dumps(state))
        write_sums(part, (_STATE, _TENSORS))
        before = _before(folder)
        if folder.is_dir():
            shutil.rmtree(before, ignore_errors=True)
            folder.replace(before)
        publish(part, folder)
        shutil.rmtree(before, ignore_errors=True)

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        """Read a checkpoint. Raises TrainingError if it is damaged."""
        del map_location, weights_only
        folder = Path(path)
        try:
            sums = read_sums(folder / SUMS)
            if sums is None:
                warn_unchecked(f"The checkpoint {folder.name}", "The next one will have them")
            state = json.loads(read_checked(folder / _STATE, sums))
            restored = _restored(state, load(read_checked(folder / _TENSORS, sums)))
        except (OSError, ValueError, KeyError, SafetensorError) as error:
            # Of others only the type: the system's message contains the absolute path.
            reason = error if isinstance(error, ChecksumError) else type(error).__name__
            remedy = "Delete it and use --resume: this split then starts from the beginning"
            msg = f"checkpoint {folder.name} cannot be read ({reason}). {remedy}"
            raise TrainingError(msg) from error
        assert isinstance(restored, dict)
        return restored

    def remove_checkpoint(self, path: Any) -> None:
        """Delete a checkpoint."""
        shutil.rmtree(path, ignore_errors=True)


def latest_checkpoint(folder: Path) -> Path | None:
    """The checkpoint, or the previous one if a run was killed while replacing it; None if there is neither."""
    return next((path for path in (folder, _before(folder)) if path.is_dir()), None)


def _before(folder: Path) -> Path:
    return folder.with_name(folder.name + ".before")


def _plain(value: Any, tensors: dict[str, torch.Tensor]) -> Any:
    """Convert a nested value to JSON; each tensor goes into ``tensors`` and is replaced by its key."""
    if isinstance(value, torch.Tensor):
        key = str(len(tensors))
        tensors[key] = value.detach().cpu().contiguous().clone()
        return {_TENSOR: key}
    if isinstance(value, dict):
        # Keys may be integers (optimiser state), which JSON would turn into strings.
        return {_ITEMS: [[_plain(key, tensors), _plain(item, tensors)] for key, item in value.items()]}
    if isinstance(value, tuple):
        return {_TUPLE: [_plain(item, tensors) for item in value]}
    if isinstance(value, list):
        return [_plain(item, tensors) for item in value]
    if value is None or isinstance(value, str | int | float | bool):
        return value
    msg = f"a checkpoint can hold only tensors and plain values, got {type(value).__name__}"
    raise TypeError(msg)


def _restored(value: Any, tensors: dict[str, torch.Tensor]) -> Any:
    if isinstance(value, list):
        return [_restored(item, tensors) for item in value]
    if not isinstance(value, dict):
        return value
    if _TENSOR in value:
        return tensors[value[_TENSOR]]
    if _TUPLE in value:
        return tuple(_restored(item, tensors) for item in value[_TUPLE])
    return {_restored(key, tensors): _restored(item, tensors) for key, item in value[_ITEMS]}
