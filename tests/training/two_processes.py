"""Code of each of two processes in test_two_processes.py: its half of a batch, and the resulting gradients."""

import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, distributed, nn

from hemoscope.training.losses import LossConfig, loss_parts
from hemoscope.training.models.network import HemorrhageNetwork, NetworkConfig

BATCH = 8
CONFIGS = {
    "everything": LossConfig(positive=(3.0, 2.0, 1.0, 1.0, 1.0, 5.0), negative=(0.5, 1.0, 1.0, 1.0, 1.0, 1.0)),
    "focal": LossConfig(kind="focal", map=0.0, dice=0.0),
    "published": LossConfig(map=0.0, dice=0.0),
}


def network() -> HemorrhageNetwork:
    torch.manual_seed(1)
    config = NetworkConfig(backbone="test_resnet", width=8, pooled=4)
    return HemorrhageNetwork(config, channels=3, size=64).eval()


def batch() -> tuple[Tensor, ...]:
    """Images, labels, masks, typed, mask_known. Almost all that is unknown lies in the second half."""
    torch.manual_seed(2)
    labels = (torch.rand(BATCH, 6) > 0.5).float()
    labels[0, 3] = labels[5, 1:] = labels[6, :4] = labels[7, 0] = torch.nan
    mask = torch.zeros(BATCH, 64, 64)
    mask[:, 16:48, 8:32] = 1
    typed, mask_known = (labels[:, 1:].nan_to_num(0).sum(1) <= 2).float(), torch.ones(BATCH)
    mask_known[4:6] = 0
    return torch.rand(BATCH, 3, 64, 64), labels, mask, typed, mask_known


def gradients(model: nn.Module, rows: slice, config: LossConfig) -> tuple[dict[str, Tensor], Tensor]:
    """Gradients of every parameter and the loss, of some rows of the batch."""
    image, labels, mask, typed, mask_known = (tensor[rows] for tensor in batch())
    parts = loss_parts(model(image), labels, mask, typed, config, mask_known=mask_known)
    loss = torch.stack(list(parts.values())).sum()
    model.zero_grad()
    loss.backward()
    found = {name.removeprefix("module."): p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    return found, loss.detach()


def main(rank: int, folder: Path) -> None:
    """Join the other process, and write the gradients of each loss, which both share, and the mean of their losses."""
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder / 'meeting'}", rank=rank, world_size=2)
    model = nn.parallel.DistributedDataParallel(network(), find_unused_parameters=True).eval()
    half = BATCH // 2
    for name, config in CONFIGS.items():
        found, loss = gradients(model, slice(rank * half, (rank + 1) * half), config)
        distributed.all_reduce(loss)
        save_file({**found, "loss": loss / 2}, folder / f"{name}-{rank}.safetensors")
    distributed.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
