"""One kind of input that is fuzzed, and how an execution ends."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from hemoscope.errors import HemoscopeError

from . import mutation

REPOSITORY = Path(__file__).resolve().parents[2]


@dataclass(slots=True, kw_only=True)
class Target:
    """One boundary at which data of others come in.

    Attributes:
        seeds: makes valid inputs in a folder.
        run: reads one input; a HemoscopeError is an answer, any other exception is found. May use the folder.
        mutate: damages a seed.
        weight: how much of the time it gets.
        guided: whether coverage-guided fuzzing helps: slow or native code gains nothing.
    """

    seeds: Callable[[Path], list[bytes]]
    run: Callable[[bytes, Path], object]
    mutate: mutation.Mutate = mutation.mutate_bytes
    weight: float = 1.0
    guided: bool = True


def run_one(target: Target, data: bytes, folder: Path) -> str:
    """Run a target on one input, and return how it ended: ``read``, or the class of the typed error."""
    try:
        target.run(data, folder)
    except HemoscopeError as error:
        str(error).encode("utf-8", "backslashreplace")
        return type(error).__name__
    return "read"


def input_of(target: Target, seeds: list[bytes], number: int) -> bytes:
    """The damaged input of a number."""
    return target.mutate(seeds[number % len(seeds)], random.Random(number))
