"""Runs a bundle's graph on the CPU with OpenVINO: model inputs in, raw scores and heat maps out.

Choices, each made on purpose:

- Precision is float32. Left to itself OpenVINO computes in bfloat16 where the processor can, which moved the logits of
  a ResNet-50 by 0.5.
- One slice a request, one thread a request, as many requests at once as threads. On two cores this was as fast as any
  batch (240 slices of an EfficientNet-Lite0 at 224 pixels: 0.62 s; batches of 8 and 16: 0.67 and 0.87 s), needs the
  least memory, and a slice's scores cannot depend on its neighbours in a batch or on the number of threads.
- OpenVINO's telemetry is never loaded. A plain ``import openvino`` imports its model converter, which reports the
  import to Google Analytics unless a file in the home folder forbids it.
"""

import os
import sys
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from hemoscope.bundle import GRAPH, ModelBundle
from hemoscope.errors import BundleError
from hemoscope.labels import LABELS

INPUT = "image"
LOGITS = "logits"
MAPS = "maps"

_MOST_THREADS = 8
# None in sys.modules makes Python refuse an import. OpenVINO does without both: the converter turns training-time
# models into its own format, which reading ONNX does not need, and without the telemetry package it uses a stub.
_NEVER_IMPORTED = ("openvino_telemetry", "openvino.tools.ovc")


@dataclass(frozen=True, slots=True, kw_only=True)
class RawScores:
    """What the graph gave, slices in the order of the inputs.

    Attributes:
        logits: float32, shape (slices, 6), label order; not calibrated.
        maps: float32 class-activation logits, shape (slices, 6, height, width), over the square that the model saw;
            None unless asked for.
    """

    logits: NDArray[np.float32]
    maps: NDArray[np.float32] | None


class Engine:
    """A compiled graph. Compiling takes 0.1 to 0.3 s, so make one and keep it; ``run`` from one thread at a time."""

    def __init__(self, bundle: ModelBundle, *, threads: int | None = None) -> None:
        """Compile the bundle's graph.

        Args:
            bundle: a verified bundle.
            threads: slices computed at once, each on one thread; None takes the processors this process may use,
                eight at most.

        Raises:
            BundleError: the graph cannot be run, or its inputs and outputs are not those of the format.
            ValueError: ``threads`` is below one.
        """
        self.threads = available_threads() if threads is None else threads
        if self.threads < 1:
            msg = f"threads must be at least 1, got {threads}"
            raise ValueError(msg)
        preprocessing = bundle.card.preprocessing
        self.input_shape = (preprocessing.channels, preprocessing.size, preprocessing.size)
        self._compiled = _compile(bundle, self.input_shape, self.threads)
        self._requests = [self._compiled.create_infer_request() for _ in range(self.threads)]

    def run(self, inputs: Iterable[NDArray[np.float32]], *, maps: bool = False) -> RawScores:
        """Score slices; as many inputs as threads are held at once, so an iterator keeps memory bounded.

        Args:
            inputs: model inputs, each float32 (channels, size, size); an array (slices, channels, size, size) will do.
            maps: keep the heat maps too.

        Raises:
            ValueError: an input has another shape or type.
            BundleError: the graph gave a score that is not a finite number.
        """
        kept = list(self._answers(inputs, maps=maps))
        logits = np.array([answer for answer, _ in kept], dtype=np.float32).reshape(-1, len(LABELS))
        if not np.isfinite(logits).all():
            _refuse("gave a score that is not a finite number")
        stacked = [answer for _, answer in kept if answer is not None]
        return RawScores(logits=logits, maps=np.stack(stacked) if stacked else None)

    def _answers(
        self, inputs: Iterable[NDArray[np.float32]], *, maps: bool
    ) -> Iterator[tuple[NDArray[np.float32], NDArray[np.float32] | None]]:
        """Yield logits (6,) and map (6, height, width) of each input in order, with all requests kept busy."""
        idle, busy = deque(self._requests), deque[Any]()
        try:
            for image in inputs:
                if not idle:
                    yield _answer(busy[0], maps=maps)
                    idle.append(busy.popleft())
                request = idle.popleft()
                request.start_async({INPUT: self._checked(image)[np.newaxis]})
                busy.append(request)
            while busy:
                yield _answer(busy[0], maps=maps)
                busy.popleft()
        finally:
            for request in busy:  # after an error or a break the requests must be free for the next run
                request.wait()

    def _checked(self, image: NDArray[np.float32]) -> NDArray[np.float32]:
        if image.shape != self.input_shape or image.dtype != np.float32:
            msg = f"expected a float32 input of shape {self.input_shape}, got {image.dtype} {image.shape}"
            raise ValueError(msg)
        return np.ascontiguousarray(image)


def available_threads() -> int:
    """Return how many processors this process may use, eight at most."""
    affinity = getattr(os, "sched_getaffinity", None)  # absent on macOS and Windows
    count = len(affinity(0)) if affinity else os.cpu_count() or 1
    return min(count, _MOST_THREADS)


def _answer(request: Any, *, maps: bool) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
    """Wait for one request and copy what it gave: its tensors are reused."""
    request.wait()
    logits = request.get_tensor(LOGITS).data[0].copy()
    return logits, request.get_tensor(MAPS).data[0].copy() if maps else None


def _openvino() -> Any:
    """Import OpenVINO without its converter and telemetry."""
    if "openvino" not in sys.modules:
        for name in _NEVER_IMPORTED:
            sys.modules.setdefault(name, None)  # type: ignore[arg-type]  # None is how Python spells "refuse"
    import openvino

    return openvino


def _compile(bundle: ModelBundle, input_shape: tuple[int, int, int], threads: int) -> Any:
    """Read the verified bytes (never the file again), check the graph's ports, and compile for one slice a request."""
    graph = bundle.read_graph()
    core = _openvino().Core()
    settings = {
        "INFERENCE_PRECISION_HINT": "f32",
        "EXECUTION_MODE_HINT": "ACCURACY",
        "PERFORMANCE_HINT": "THROUGHPUT",
        "NUM_STREAMS": str(threads),
        "INFERENCE_NUM_THREADS": threads,
    }
    try:
        model = core.read_model(model=graph, weights=b"")
        _check_ports(model, input_shape)
        return core.compile_model(model, "CPU", settings)
    except RuntimeError as error:  # all that OpenVINO raises: not ONNX, an unknown operator, shapes that do not fit
        _refuse(f"cannot be run: {str(error).strip().splitlines()[-1].rstrip('.')}", error)


def _check_ports(model: Any, input_shape: tuple[int, int, int]) -> None:
    """Refuse a graph whose inputs and outputs are not those of the bundle's format; fix it to one slice."""
    inputs = [name for port in model.inputs for name in port.get_names()]
    outputs = {name for port in model.outputs for name in port.get_names()}
    if inputs != [INPUT] or not {LOGITS, MAPS} <= outputs:
        found = f"inputs {inputs} and outputs {sorted(outputs)}"
        _refuse(f"has {found}, expected input {INPUT} and outputs {LOGITS} and {MAPS}")
    model.reshape({INPUT: [1, *input_shape]})
    logits, maps = list(model.output(LOGITS).shape), list(model.output(MAPS).shape)
    if logits != [1, len(LABELS)] or len(maps) != 4 or maps[:2] != [1, len(LABELS)]:
        _refuse(f"gives logits {logits} and maps {maps} for one slice, expected [1, 6] and [1, 6, height, width]")


def _refuse(reason: str, cause: Exception | None = None) -> NoReturn:
    msg = f"model bundle: {GRAPH}: {reason}. Export the model again"
    raise BundleError(msg) from cause
