"""The slice network: a timm backbone and a head. One forward pass gives both scores and heat maps."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Self, get_args

import timm
import torch
from torch import Tensor, nn

from hemoscope.errors import ConfigError
from hemoscope.training.models.heads import FlattenHead, MapHead, Output, PooledHead

__all__ = [
    "AveragedNetworks",
    "Head",
    "HemorrhageNetwork",
    "MirroredNetwork",
    "NeighbourInit",
    "NetworkConfig",
    "Normalization",
    "Output",
    "reading_network",
]

Head = Literal["maps", "pooled", "flatten"]
Normalization = Literal["symmetric", "published", "none"]
NeighbourInit = Literal["repeated", "middle"]

# Parameter names of the stem, and the number of the first stage, for ``frozen_stages``.
_STAGES = (
    (("conv_stem.", "bn1."), "blocks.{}.", 0),  # EfficientNet, MobileNet
    (("conv1.", "bn1."), "layer{}.", 1),  # ResNet
    (("stem_0.", "stem_1."), "stages_{}.", 0),  # ConvNeXt
)
STRIDE = 32  # of the last features of every accepted backbone


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkConfig:
    """Architecture of the slice network.

    Attributes:
        backbone: timm's name of a convolutional network with features of strides 8, 16 and 32.
        head: ``maps`` projects the features of strides 8, 16 and 32 to one width, sums them top-down and gives one map
            per label at stride 8; a label's score is the mean of its map's highest logits. ``pooled`` is global
            average pooling and one linear layer. ``flatten`` is the paper's: flattened features, a hidden layer with
            ReLU, six scores; it accepts only images of the training size.
        width: channels of the head ``maps``.
        pooled: number of a map's highest logits that are averaged into the score in the head ``maps``.
        frozen_stages: number of the backbone's first stages whose weights are not trained.
        frozen_base: train the head alone: the whole backbone keeps its initial weights and batch statistics, and its
            batch normalization uses them in training too.
        hidden: units of the hidden layer of the head ``flatten``.
        head_std: standard deviation of the normal initialisation of ``pooled`` and ``flatten``, with zero biases (the
            paper says "normal", Keras' normal is 0.05); None is PyTorch's initialisation.
        normalization: of the backbone's input from [0, 1]: ``symmetric`` scales it to [-1, 1]; ``published`` uses the
            mean and standard deviation that timm publishes with the backbone's weights; ``none`` leaves it in [0, 1],
            as in the paper.
        neighbour_init: how the first layer starts from loaded weights if neighbouring slices are channels:
            ``repeated`` gives every slice the same filters, so that it starts from their mean; ``middle`` gives the
            neighbours zeros, so that it starts from the middle slice alone. With ``middle`` the first layer is trained
            even if its stage is frozen: otherwise it would never see the neighbours.
    """

    backbone: str = "tf_efficientnet_lite0"
    head: Head = "maps"
    width: int = 64
    pooled: int = 8
    frozen_stages: int = 0
    frozen_base: bool = False
    hidden: int = 256
    head_std: float | None = None
    normalization: Normalization = "symmetric"
    neighbour_init: NeighbourInit = "repeated"

    def __post_init__(self) -> None:
        """Reject settings from which no network can be built."""
        if self.normalization not in get_args(Normalization):
            msg = f"normalization must be one of {', '.join(get_args(Normalization))}, got {self.normalization}"
            raise ConfigError(msg)
        if self.neighbour_init not in get_args(NeighbourInit):
            msg = f"neighbour_init must be one of {', '.join(get_args(NeighbourInit))}, got {self.neighbour_init}"
            raise ConfigError(msg)
        if self.head not in get_args(Head):
            msg = f"head must be one of {', '.join(get_args(Head))}, got {self.head}"
            raise ConfigError(msg)
        if self.width < 1 or self.pooled < 1 or self.hidden < 1:
            msg = f"width, pooled and hidden must be positive, got {self.width}, {self.pooled} and {self.hidden}"
            raise ConfigError(msg)
        if self.frozen_stages < 0:
            msg = f"frozen_stages must not be negative, got {self.frozen_stages}"
            raise ConfigError(msg)
        if self.frozen_base and self.frozen_stages:
            msg = f"frozen_base freezes every stage, got frozen_stages = {self.frozen_stages} too. Remove one of them"
            raise ConfigError(msg)
        if self.head_std is not None and not self.head_std > 0:
            msg = f"head_std must be positive, got {self.head_std}"
            raise ConfigError(msg)
        if self.head_std is not None and self.head == "maps":
            msg = f"head_std is for the heads pooled and flatten, got {self.head_std} with maps. Remove it"
            raise ConfigError(msg)


class HemorrhageNetwork(nn.Module):
    """Input (N, channels, S, S) in [0, 1], S a multiple of 32; see ``Output``.

    Attributes:
        config: its architecture.
        size: S of training. The head ``flatten`` accepts no other.
        neighbours: slices below and above that are channels, as in ``Preprocessing``.
        embedding_size: channels of ``Output.embedding``.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, config: NetworkConfig, *, channels: int, size: int, neighbours: int = 0) -> None:
        """Build with random weights; ``checkpoint.load_init`` loads others, for which it needs ``neighbours``.

        Raises:
            ConfigError: timm has no such backbone, it lacks features of the strides that the head needs, the stages to
                freeze or a published normalization, or the size is not a multiple of 32.
        """
        super().__init__()
        if size < STRIDE or size % STRIDE:
            msg = f"the size of a network's input must be a multiple of {STRIDE}, got {size}"
            raise ConfigError(msg)
        self.config = config
        self.size = size
        self.neighbours = neighbours
        self.backbone = _backbone(config, channels)
        mean, scale = _normalization(config, channels)
        # Settings, not weights: not part of the state dict.
        self.register_buffer("mean", mean, persistent=False)
        self.register_buffer("scale", scale, persistent=False)
        counts: list[int] = self.backbone.feature_info.channels()  # type: ignore[operator, union-attr]
        self.embedding_size = counts[-1]
        self.head = _head(config, counts, side=size // STRIDE)
        self._freeze(config.frozen_stages)
        if config.frozen_base:
            self.backbone.requires_grad_(False)
            self.train()

    def forward(self, image: Tensor) -> Output:
        """Apply to a batch; see the class."""
        output: Output = self.head(self.backbone(self._normalized(image)))
        return output

    def train(self, mode: bool = True) -> Self:
        """Switch to training or evaluation; a frozen base stays in evaluation."""
        super().train(mode)
        if self.config.frozen_base:
            self.backbone.eval()
        return self

    def _normalized(self, image: Tensor) -> Tensor:
        if self.config.normalization == "none":
            return image
        return image * 2 - 1 if self.config.normalization == "symmetric" else (image - self.mean) * self.scale

    def _freeze(self, stages: int) -> None:
        """Freeze the weights of the stem and the first stages; their batch statistics still adapt to CT."""
        if stages == 0:
            return
        named = dict(self.backbone.named_parameters())
        fixed = _fixed_prefixes(list(named), stages)
        if not fixed:
            msg = f"{self.config.backbone} does not have {stages} stages that can be frozen. Lower frozen_stages"
            raise ConfigError(msg)
        first = next(iter(named)) if self.config.neighbour_init == "middle" else None
        for name, parameter in named.items():
            if name.startswith(fixed) and name != first:
                parameter.requires_grad = False


def _normalization(config: NetworkConfig, channels: int) -> tuple[Tensor, Tensor]:
    """Mean and inverse standard deviation of each channel, (1, C, 1, 1); RGB values repeat over the channels."""
    mean: tuple[float, ...] = (0.5,)
    deviation = mean
    if config.normalization == "published":
        published = timm.models.get_pretrained_cfg(config.backbone)
        if published is None or not published.has_weights:
            msg = f"timm publishes no weights, and so no mean, of {config.backbone}. Use normalization = 'symmetric'"
            raise ConfigError(msg)
        mean, deviation = published.mean, published.std
    rounds = [(mean[c % len(mean)], 1 / deviation[c % len(deviation)]) for c in range(channels)]
    both = torch.tensor(rounds, dtype=torch.float32).T.reshape(2, 1, channels, 1, 1)
    return both[0], both[1]


def _backbone(config: NetworkConfig, channels: int) -> nn.Module:
    """Timm's network without its classifier; returns the features of its last three strides, (N, C, h, w) each."""
    if not timm.is_model(config.backbone):  # also reject hub addresses, which timm would download
        msg = f"timm has no backbone {config.backbone!r}. Choose one of timm.list_models()"
        raise ConfigError(msg)
    last = (-3, -2, -1) if config.head == "maps" else (-1,)
    backbone: nn.Module = timm.create_model(
        config.backbone, features_only=True, out_indices=last, in_chans=channels, pretrained=False
    )
    strides: list[int] = backbone.feature_info.reduction()  # type: ignore[operator, union-attr]
    layout = str(getattr(backbone, "output_fmt", "NCHW"))
    if strides != [8, 16, 32][-len(last) :] or "NCHW" not in layout:
        found = f"{', '.join(map(str, strides))} laid out as {layout}"
        msg = f"{config.backbone} has features of strides {found}, the heads need 8, 16, 32 and NCHW. Choose another"
        raise ConfigError(msg)
    return backbone


def _head(config: NetworkConfig, channels: list[int], *, side: int) -> nn.Module:
    if config.head == "maps":
        return MapHead(channels, width=config.width, pooled=config.pooled)
    if config.head == "pooled":
        return PooledHead(channels[-1], std=config.head_std)
    return FlattenHead(channels[-1], side=side, hidden=config.hidden, std=config.head_std)


def _fixed_prefixes(names: list[str], stages: int) -> tuple[str, ...]:
    """Name prefixes of the parameters of the stem and the first stages; empty if they are unknown."""
    for stem, stage, first in _STAGES:
        fixed = (*stem, *(stage.format(first + number) for number in range(stages)))
        if all(any(name.startswith(prefix) for name in names) for prefix in fixed):
            return fixed
    return ()


def reading_network(network: nn.Module, *, mirror: bool) -> nn.Module:
    """Return the network that scores held-out slices and is exported; ``mirror`` is ``ReadingConfig.mirror``."""
    return (MirroredNetwork(network) if mirror else network).eval()


class MirroredNetwork(nn.Module):
    """The mean of a network's outputs for a slice and its mirror image, maps mirrored back."""

    def __init__(self, network: nn.Module) -> None:
        """Wrap a trained network."""
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> Output:
        """Return outputs of the same shapes as the network's."""
        plain, mirrored = self.network(image), self.network(torch.flip(image, dims=[3]))
        maps = (plain.maps + torch.flip(mirrored.maps, dims=[3])) / 2
        return Output((plain.logits + mirrored.logits) / 2, maps, (plain.embedding + mirrored.embedding) / 2)


class AveragedNetworks(nn.Module):
    """The mean of several networks' outputs for the same slice, such as of one recipe trained from several seeds."""

    def __init__(self, networks: Sequence[nn.Module]) -> None:
        """Wrap trained networks of one architecture."""
        super().__init__()
        self.networks = nn.ModuleList(networks)

    def forward(self, image: Tensor) -> Output:
        """Return outputs of the same shapes as one network's."""
        first, *others = (network(image) for network in self.networks)
        summed = Output(*first)
        for other in others:
            summed = Output(*(mine + its for mine, its in zip(summed, other, strict=True)))
        return Output(*(value / len(self.networks) for value in summed))
