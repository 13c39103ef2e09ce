"""The number format in which a bundle's graph is computed, and which formats a card accepts.

float32 is the reference: scores, calibration and thresholds of a card are measured in it. A reduced precision is
accepted by scores, never by speed alone, and the card says what was measured. Nothing heavy is imported here: every
command reads these names for its ``--help``.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from hemoscope.errors import ConfigError

# A processor's flags in /proc/cpuinfo, any of which computes in bf16. Without them OpenVINO may simulate it, slower.
_BF16_FLAGS = frozenset({"avx512_bf16", "amx_bf16"})


class Precision(StrEnum):
    """What is asked for; ``auto`` takes the fastest that the card accepts and this processor has, else float32."""

    AUTO = "auto"
    FLOAT32 = "float32"
    BF16 = "bf16"
    INT8 = "int8"


DEFAULT_PRECISION = Precision.AUTO
DEVICES = ("cpu", "cuda")
DEVICE_HELP = "of the network: cpu, or cuda for a GPU of NVIDIA (extra: gpu)"
PRECISION_HELP = "of the network: auto, float32, bf16 or int8; auto takes the fastest that the model's card accepts"


@dataclass(frozen=True, slots=True, kw_only=True)
class PrecisionTest:
    """How a model's scores in a reduced precision differ from those in float32.

    Attributes:
        precision: that was tested.
        accepted: whether ``auto`` may use it.
        time: processor time of a slice, divided by that of float32.
        processor: on which both were measured.
        data: what was scored.
        slices: number of them.
        studies: number of them.
        auroc: largest change of an AUROC out of fold.
        slice: largest change of a slice's probability of ``any``.
        study: largest change of a study's probability of ``any``.
        crossed: studies of which a label changed sides although float32 was further than .03 from the threshold.
    """

    precision: Literal["bf16", "int8"]
    accepted: bool
    time: float
    processor: str
    data: str
    slices: int
    studies: int
    auroc: float
    slice: float
    study: float
    crossed: int


def precision_of(text: str) -> Precision:
    """Read the name of a precision. Raises ConfigError if there is no such."""
    try:
        return Precision(text)
    except ValueError as error:
        msg = f"--precision is {', '.join(Precision)}, got {text!r}"
        raise ConfigError(msg) from error


def chosen_precision(
    asked: Precision, tests: tuple[PrecisionTest, ...], *, has_int8: bool, supported: frozenset[Precision]
) -> Precision:
    """Return the precision to compute in.

    Args:
        asked: by the user.
        tests: of the card.
        has_int8: whether the bundle holds a graph in int8.
        supported: what this processor has.

    Raises:
        ConfigError: the processor lacks what was asked for, or the bundle has no such graph.
    """
    if asked is Precision.AUTO:
        usable = [one for one in tests if one.accepted and Precision(one.precision) in supported]
        return Precision(min(usable, key=lambda one: one.time).precision) if usable else Precision.FLOAT32
    if asked is Precision.INT8 and not has_int8:
        msg = "the model bundle has no graph in int8. Use --precision float32, or export it with --quantize CACHE"
        raise ConfigError(msg)
    if asked not in supported:
        msg = f"this processor lacks instructions for {asked.value}. Use --precision float32 or auto"
        raise ConfigError(msg)
    return asked


def supported_precisions(capabilities: frozenset[str], flags: frozenset[str] | None) -> frozenset[Precision]:
    """Return what a processor computes in.

    Args:
        capabilities: that the engine states for it.
        flags: of /proc/cpuinfo; None where there is no such file.
    """
    found = {Precision.FLOAT32}
    if "INT8" in capabilities:
        found.add(Precision.INT8)
    if "BF16" in capabilities and (flags is None or flags & _BF16_FLAGS):
        found.add(Precision.BF16)
    return frozenset(found)
