"""Files of tensors (safetensors) with the SHA-256 of their content in the metadata, checked when they are read."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from hemoscope.checksums import ChecksumError, warn_unchecked

_KEY = "sha256"


def save_tensors(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Write named tensors and their checksum; no two may share memory. Not atomic: give the path of a draft."""
    whole = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    save_file(whole, path, metadata={_KEY: _digest(whole)})


def load_tensors(path: Path, *, of_others: bool = False) -> dict[str, Tensor]:
    """Read named tensors.

    Args:
        path: of the file.
        of_others: whether other programs may have written it, without a checksum. Else such a file is read with a
            warning, since an earlier version may have written it.

    Raises:
        ChecksumError: they are not those that were written.
        OSError: the file cannot be read.
        SafetensorError: it is no file of tensors.
    """
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata() or {}
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    if _KEY in metadata:
        if metadata[_KEY] != _digest(tensors):
            msg = f"{path.name}: its checksum is wrong"
            raise ChecksumError(msg)
    elif metadata and not of_others:
        msg = f"{path.name}: it has other metadata than a checksum"
        raise ChecksumError(msg)
    elif not of_others:
        warn_unchecked(path.name, "Write it again with this version to have it checked")
    return tensors


def _digest(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of tensors with their names, types and shapes."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
