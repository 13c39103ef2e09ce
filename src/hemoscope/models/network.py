"""The networks: a backbone of timm and a head. Both classifier and heat map come out of one forward pass."""

from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import timm
import torch
from torch import Tensor, nn

from hemoscope.errors import ConfigError
from hemoscope.labels import LABELS

Head = Literal["maps"]


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkConfig:
    """What the network is made of.

    Attributes:
        backbone: a name that timm knows.
        head: ``maps`` brings the features of strides 8, 16 and 32 to one width, sums them upward and gives one map a
            label at stride 8; a label's score is the mean of its map's highest logits.
        width: channels of the head.
        pooled: how many of a map's highest logits make the score.
        frozen_stages: how many of the backbone's first stages keep their ImageNet weights.
    """

    backbone: str = "tf_efficientnet_lite0"
    head: Head = "maps"
    width: int = 64
    pooled: int = 8
    frozen_stages: int = 0

    def __post_init__(self) -> None:
        """Reject what no network could be built from."""
        if self.head not in get_args(Head):
            msg = f"head must be one of {', '.join(get_args(Head))}, got {self.head}"
            raise ConfigError(msg)
        if self.width < 1 or self.pooled < 1:
            msg = f"width and pooled must be positive, got {self.width} and {self.pooled}"
            raise ConfigError(msg)
        if self.frozen_stages < 0:
            msg = f"frozen_stages must not be negative, got {self.frozen_stages}"
            raise ConfigError(msg)


class Output(NamedTuple):
    """Raw scores (N, 6) in label order, and the map logits (N, 6, h, w) that they were pooled from."""

    logits: Tensor
    maps: Tensor


class MapHead(nn.Module):
    """One map a label at the finest of the given strides; see ``NetworkConfig.head``."""

    def __init__(self, channels: list[int], *, width: int, pooled: int) -> None:
        """``channels`` of the features, finest first."""
        super().__init__()
        self.pooled = pooled
        self.lateral = nn.ModuleList(nn.Conv2d(count, width, 1) for count in channels)
        self.mix = nn.Sequential(nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU())
        self.maps = nn.Conv2d(width, len(LABELS), 1)
        assert self.maps.bias is not None
        nn.init.constant_(self.maps.bias, -3.0)

    def forward(self, features: list[Tensor]) -> Output:
        """Features, finest first, to scores and maps."""
        lateral = [layer(feature) for layer, feature in zip(self.lateral, features, strict=True)]
        summed = lateral[-1]
        for finer in reversed(lateral[:-1]):
            summed = finer + nn.functional.interpolate(summed, scale_factor=2.0, mode="nearest")
        maps = self.maps(self.mix(summed))
        logits = maps.flatten(2).topk(self.pooled, dim=2).values.mean(2)
        return Output(logits, maps)


class HemorrhageNetwork(nn.Module):
    """Input (N, channels, S, S) in [0, 1], S a multiple of 32; see ``Output``."""

    def __init__(self, config: NetworkConfig, *, channels: int) -> None:
        """Build with random weights; ``checkpoint.load_imagenet`` brings others.

        Raises:
            ConfigError: timm has no such backbone, or it has not as many stages as are to be frozen.
        """
        super().__init__()
        if not timm.is_model(config.backbone):  # nor are addresses of a hub, which timm would fetch
            msg = f"timm knows no backbone {config.backbone!r}. Choose one of timm.list_models()"
            raise ConfigError(msg)
        self.config = config
        self.backbone = timm.create_model(
            config.backbone, features_only=True, out_indices=(2, 3, 4), in_chans=channels, pretrained=False
        )
        channels_out: list[int] = self.backbone.feature_info.channels()  # type: ignore[operator, union-attr]
        self.head = MapHead(channels_out, width=config.width, pooled=config.pooled)
        self._freeze(config.frozen_stages)

    def forward(self, image: Tensor) -> Output:
        """See the class."""
        output: Output = self.head(self.backbone(image * 2 - 1))
        return output

    def _freeze(self, stages: int) -> None:
        """Fix the weights of the stem and the first stages; their batch statistics still follow CT."""
        if stages == 0:
            return
        fixed = ["conv_stem.", "bn1.", *(f"blocks.{stage}." for stage in range(stages))]
        named = dict(self.backbone.named_parameters())
        if not any(name.startswith(fixed[-1]) for name in named):
            msg = f"{self.config.backbone} has no {stages} stages that can be frozen. Lower frozen_stages"
            raise ConfigError(msg)
        for name, parameter in named.items():
            if name.startswith(tuple(fixed)):
                parameter.requires_grad = False


class MirroredNetwork(nn.Module):
    """The mean of a network's answer to a slice and to its mirror image, maps mirrored back: what is exported."""

    def __init__(self, network: nn.Module) -> None:
        """Wrap a trained network."""
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> Output:
        """Same shapes as the network alone."""
        plain, mirrored = self.network(image), self.network(torch.flip(image, dims=[3]))
        maps = (plain.maps + torch.flip(mirrored.maps, dims=[3])) / 2
        return Output((plain.logits + mirrored.logits) / 2, maps)
