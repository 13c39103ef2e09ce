"""Keeps depthwise convolutions in float32 where a processor trains in bf16.

oneDNN has no fast backward pass for them in bf16: those of 5 x 5 took two thirds of a step of the default recipe, more
than all that bf16 saves in the other layers. Other devices, and training in float32, are not changed.
"""

from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["depthwise_in_float32"]

_LEFT = "_autocast_left"


def depthwise_in_float32(network: nn.Module) -> None:
    """Let each depthwise convolution of a network compute in float32 under ``torch.autocast`` on a processor."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d) and 1 < module.groups == module.in_channels:
            module.register_forward_pre_hook(_leave_autocast)
            module.register_forward_hook(_enter_again, always_call=True)


def _leave_autocast(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
    if inputs[0].device.type != "cpu" or not torch.is_autocast_enabled("cpu"):
        return None
    left = torch.autocast("cpu", enabled=False)
    left.__enter__()  # type: ignore[no-untyped-call]  # left again by the other hook, also after an error
    module.__dict__[_LEFT] = left
    return tuple(one.float() for one in inputs)


def _enter_again(module: nn.Module, _inputs: Any, _output: Any) -> None:
    left = module.__dict__.pop(_LEFT, None)
    if left is not None:
        left.__exit__(None, None, None)
