"""Runs a bundle's graphs on the CPU with OpenVINO, from model inputs to raw scores and heat maps.

Deliberate choices:

- The precision is asked for and said, never OpenVINO's own choice: by default it computes in bfloat16 if the processor
  supports it, which changed the logits of a ResNet-50 by 0.5. The float parts of an int8 graph are float32.
- One slice per request, one thread per request, one request per thread in parallel. On two cores as fast as any
  batch (240 slices of an EfficientNet-Lite0 at 224 pixels: 0.62 s; batches of 8 and 16: 0.67 and 0.87 s), needs the
  least memory, and a slice's scores cannot depend on its neighbours in a batch or on the number of threads.
- The sequence graph runs on one thread: 240 slices take 8 ms, and the sums are the same on every machine.
- OpenVINO's telemetry is never loaded. A plain ``import openvino`` imports its model converter, which reports the
  import to Google Analytics unless a file in the home folder forbids it.
"""

import os
import sys
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import numpy as np
from numpy.typing import NDArray

from hemoscope.errors import BundleError, ConfigError
from hemoscope.inference.bundle import GRAPH, GRAPH_INT8, SEQUENCE, ModelBundle
from hemoscope.inference.precision import DEFAULT_PRECISION, Precision, chosen_precision, supported_precisions
from hemoscope.labels import LABELS
from hemoscope.memory import return_pages
from hemoscope.processors import available_processors

INPUT = "image"
LOGITS = "logits"
MAPS = "maps"
EMBEDDING = "embedding"
# The graph that reads a series.
EMBEDDINGS = "embeddings"
REFINED = "refined_logits"
STUDY = "study_logits"

_MOST_THREADS = 8
# None in sys.modules makes Python refuse an import. OpenVINO needs neither: the converter is for training-time models,
# not for ONNX, and without the telemetry package it uses a stub.
_NEVER_IMPORTED = ("openvino_telemetry", "openvino.tools.ovc")


@dataclass(frozen=True, slots=True, kw_only=True)
class RawScores:
    """The graph's outputs, slices in the order of the inputs.

    Attributes:
        logits: float32, shape (slices, 6), label order; not calibrated.
        maps: float32 class-activation logits, shape (slices, 6, height, width), over the square of the model's
            input; None unless requested.
        embeddings: float32, shape (slices, embedding size), for a bundle with a sequence graph; else None.
    """

    logits: NDArray[np.float32]
    maps: NDArray[np.float32] | None
    embeddings: NDArray[np.float32] | None = None


class Answer(NamedTuple):
    """One slice: logits (6,), map (6, height, width) and embedding (size,), the latter two if kept."""

    logits: NDArray[np.float32]
    map: NDArray[np.float32] | None
    embedding: NDArray[np.float32] | None


class Engine:
    """A bundle's compiled graphs. Compiling takes 0.1 to 0.3 s: create it once; use it from one thread at a time."""

    def __init__(
        self, bundle: ModelBundle, *, threads: int | None = None, precision: Precision = DEFAULT_PRECISION
    ) -> None:
        """Compile the bundle's graphs.

        Args:
            bundle: a verified bundle.
            threads: slices computed in parallel, each on one thread; None uses the processors available to this
                process, at most eight.
            precision: to compute in; the attribute ``precision`` says which it became.

        Raises:
            BundleError: a graph cannot be run, or its inputs and outputs are not those of the format.
            ConfigError: this processor lacks the precision, or the bundle has no graph for it.
            ValueError: ``threads`` is below one.
        """
        self.threads = available_threads() if threads is None else threads
        if self.threads < 1:
            msg = f"threads must be at least 1, got {threads}"
            raise ValueError(msg)
        preprocessing = bundle.card.preprocessing
        self.input_shape = (preprocessing.channels, preprocessing.size, preprocessing.size)
        rule = bundle.card.sequence
        self._embedding_size = None if rule is None else rule.embedding_size
        self.precision = resolved_precision(bundle, precision)
        self._compiled = _compile(bundle, self.input_shape, self.threads, self.precision)
        self._sequence = None if rule is None else compile_sequence(bundle, rule.embedding_size)
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
        logits = np.array([answer.logits for answer in kept], dtype=np.float32).reshape(-1, len(LABELS))
        if not np.isfinite(logits).all():
            refuse_graph(GRAPH, "gave a score that is not a finite number")
        stacked = [answer.map for answer in kept if answer.map is not None]
        return RawScores(logits=logits, maps=np.stack(stacked) if stacked else None, embeddings=self._embeddings(kept))

    def run_sequence(
        self, embeddings: NDArray[np.float32], logits: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Read a whole series: refined slice logits (places, 6) and study logits (6,), label order, not calibrated.

        Args:
            embeddings: float32 (places, embedding size), from feet to head.
            logits: float32 (places, 6), of the same places.

        Raises:
            ValueError: the bundle has no graph that reads a series, there is no place, or the shapes are others.
            BundleError: the graph gave a score that is not a finite number.
        """
        if self._sequence is None:
            msg = "this bundle has no sequence network"
            raise ValueError(msg)
        expected = (len(logits), self._embedding_size), (len(logits), len(LABELS))
        if not len(logits) or (embeddings.shape, logits.shape) != expected:
            found = f"{embeddings.shape} and {logits.shape}"
            msg = f"expected embeddings (places, {self._embedding_size}) and logits (places, 6), got {found}"
            raise ValueError(msg)
        found = self._sequence({EMBEDDINGS: embeddings[np.newaxis], LOGITS: logits[np.newaxis]})
        refined, study = np.array(found[REFINED][0]), np.array(found[STUDY][0])
        if not (np.isfinite(refined).all() and np.isfinite(study).all()):
            refuse_graph(SEQUENCE, "gave a score that is not a finite number")
        return refined, study

    def _embeddings(self, kept: Sequence[Answer]) -> NDArray[np.float32] | None:
        if self._embedding_size is None:
            return None
        return np.array([answer.embedding for answer in kept], dtype=np.float32).reshape(-1, self._embedding_size)

    def _answers(self, inputs: Iterable[NDArray[np.float32]], *, maps: bool) -> Iterator[Answer]:
        """Yield the outputs for each input in order, keeping all requests busy."""
        embedding = self._embedding_size is not None
        idle, busy = deque(self._requests), deque[Any]()
        try:
            for image in inputs:
                if not idle:
                    yield _answer(busy[0], maps=maps, embedding=embedding)
                    idle.append(busy.popleft())
                request = idle.popleft()
                request.start_async({INPUT: self._checked(image)[np.newaxis]})
                busy.append(request)
            while busy:
                yield _answer(busy[0], maps=maps, embedding=embedding)
                busy.popleft()
        finally:
            for request in busy:  # after an error or a break the requests must be free for the next run
                request.wait()

    def _checked(self, image: NDArray[np.float32]) -> NDArray[np.float32]:
        if image.shape != self.input_shape or image.dtype != np.float32:
            msg = f"expected a float32 input of shape {self.input_shape}, got {image.dtype} {image.shape}"
            raise ValueError(msg)
        return np.ascontiguousarray(image)


def available_threads(workers: int = 1) -> int:
    """Return the threads of one engine: the processors available here, shared by so many workers, at most eight each.

    Examples:
        >>> available_threads(workers=1000)
        1
    """
    return min(_MOST_THREADS, max(1, available_processors() // max(1, workers)))


def precision_on(device: str, bundle: ModelBundle, precision: Precision) -> Precision:
    """Return the precision that a bundle is computed in on a device of this machine.

    Raises:
        ConfigError: the device, or this processor, lacks that precision.
    """
    if device == "cpu":
        return resolved_precision(bundle, precision)
    if precision not in {Precision.AUTO, Precision.FLOAT32}:
        msg = f"--device {device} computes in float32, got --precision {precision.value}. Leave one of them out"
        raise ConfigError(msg)
    return Precision.FLOAT32


def engine_on(device: str, bundle: ModelBundle, *, threads: int | None, precision: Precision) -> Engine:
    """Make the engine of a device, ``cpu`` or ``cuda``. Raises what the engines raise."""
    if device == "cpu":
        return Engine(bundle, threads=threads, precision=precision)
    precision_on(device, bundle, precision)
    from hemoscope.inference.onnxruntime_engine import OnnxRuntimeEngine  # of the extra gpu

    return OnnxRuntimeEngine(bundle, threads=threads)


def resolved_precision(bundle: ModelBundle, precision: Precision) -> Precision:
    """Return the precision that a bundle is computed in on this processor. Raises ConfigError if it lacks that."""
    capabilities = frozenset(_openvino().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"))
    supported = supported_precisions(capabilities, _processor_flags())
    return chosen_precision(precision, bundle.card.precision or (), has_int8=bundle.has_int8, supported=supported)


def _processor_flags() -> frozenset[str] | None:
    """Return the flags of an x86 processor under Linux; None elsewhere."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    found = next((line for line in lines if line.startswith("flags")), None)
    return None if found is None else frozenset(found.partition(":")[2].split())


def _answer(request: Any, *, maps: bool, embedding: bool) -> Answer:
    """Wait for one request and copy its outputs: its tensors are reused."""
    request.wait()

    def copied(port: str) -> NDArray[np.float32]:
        found: NDArray[np.float32] = request.get_tensor(port).data[0].copy()
        return found

    return Answer(copied(LOGITS), copied(MAPS) if maps else None, copied(EMBEDDING) if embedding else None)


def refuse_telemetry() -> None:
    """Keep OpenVINO's converter and telemetry from being imported in this process."""
    for name in _NEVER_IMPORTED:
        sys.modules.setdefault(name, None)  # type: ignore[arg-type]  # None refuses the import


def _openvino() -> Any:
    """Import OpenVINO without its converter and telemetry."""
    if "openvino" not in sys.modules:
        refuse_telemetry()
    import openvino

    return openvino


def _compile(bundle: ModelBundle, input_shape: tuple[int, int, int], threads: int, precision: Precision) -> Any:
    """Read the verified bytes (never the file again), check the ports, and compile for one slice per request."""
    name = GRAPH_INT8 if precision is Precision.INT8 else GRAPH
    settings = {**_UNPINNED, "PERFORMANCE_HINT": "THROUGHPUT", "NUM_STREAMS": str(threads)}
    settings["INFERENCE_NUM_THREADS"] = threads
    rule = bundle.card.sequence
    with _graph_errors(name):
        model = _parsed(bundle, name)
        return_pages()  # of parsing: up to .1 GB for a ResNet-50, while compiling needs the most
        _check_ports(model, input_shape, name)
        if rule is not None:
            _check_embedding(model, rule.embedding_size, name)
        hints = _BF16 if precision is Precision.BF16 else _EXACT
        return _openvino().Core().compile_model(model, "CPU", {**hints, **settings})


def _parsed(bundle: ModelBundle, name: str) -> Any:
    """Read a graph's verified bytes into OpenVINO, which copies those it is given twice more than those of a file.

    Under Linux they come from a file without a name, in memory, which no other user can open: 0.43 GB at most for a
    ResNet-50 of 0.2 GB, not 0.8.
    """
    core = _openvino().Core()
    if not (hasattr(os, "memfd_create") and Path("/proc/self/fd").is_dir()):
        return core.read_model(model=bundle.read_file(name), weights=b"")
    with os.fdopen(os.memfd_create(name), "wb") as file:
        file.write(bundle.read_file(name))
        file.flush()
        return core.read_model(f"/proc/self/fd/{file.fileno()}")


def compile_sequence(bundle: ModelBundle, embedding_size: int) -> Any:
    """Read the verified sequence graph, check its ports, and compile it for any number of slices on one thread."""
    settings = {**_UNPINNED, "PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": "1", "INFERENCE_NUM_THREADS": 1}
    with _graph_errors(SEQUENCE):
        model = _parsed(bundle, SEQUENCE)
        _check_sequence_ports(model, embedding_size)
        return _openvino().Core().compile_model(model, "CPU", {**_EXACT, **settings})


# OpenVINO pins its threads to the first processors by default, whatever other processes do: two workers of one thread
# each would share the first processor and leave the second idle.
_UNPINNED: dict[str, Any] = {"ENABLE_CPU_PINNING": False}
_EXACT = {"INFERENCE_PRECISION_HINT": "f32", "EXECUTION_MODE_HINT": "ACCURACY"}
_BF16 = {"INFERENCE_PRECISION_HINT": "bf16", "EXECUTION_MODE_HINT": "PERFORMANCE"}


@contextmanager
def _graph_errors(name: str) -> Iterator[None]:
    """Name the graph that OpenVINO cannot run."""
    try:
        yield
    # Not ONNX, an unknown operator, shapes that do not fit; OpenVINO quotes the graph's names, which may be no text.
    except (RuntimeError, UnicodeDecodeError) as error:
        refuse_graph(name, f"cannot be run: {str(error).strip().splitlines()[-1].rstrip('.')}", error)


def _check_ports(model: Any, input_shape: tuple[int, int, int], name: str) -> None:
    """Refuse a graph whose inputs and outputs are not those of the bundle's format; fix it to one slice."""
    inputs, outputs = _ports(model)
    if inputs != [INPUT] or not {LOGITS, MAPS} <= set(outputs):
        found = f"inputs {inputs} and outputs {outputs}"
        refuse_graph(name, f"has {found}, expected input {INPUT} and outputs {LOGITS} and {MAPS}")
    model.reshape({INPUT: [1, *input_shape]})
    logits, maps = list(model.output(LOGITS).shape), list(model.output(MAPS).shape)
    if logits != [1, len(LABELS)] or len(maps) != 4 or maps[:2] != [1, len(LABELS)]:
        expected = "[1, 6] and [1, 6, height, width]"
        refuse_graph(name, f"gives logits {logits} and maps {maps} for one slice, expected {expected}")


def _check_embedding(model: Any, size: int, name: str) -> None:
    """Refuse a graph without an embedding of the size in the card."""
    _, outputs = _ports(model)
    if EMBEDDING not in outputs:
        refuse_graph(name, f"has outputs {outputs}, but the card has a sequence, which needs {EMBEDDING}")
    if (shape := list(model.output(EMBEDDING).shape)) != [1, size]:
        refuse_graph(name, f"gives an {EMBEDDING} of {shape} for one slice, the card says [1, {size}]")


def _check_sequence_ports(model: Any, embedding_size: int) -> None:
    """Refuse a graph whose inputs and outputs are not those of a sequence network for any number of slices."""
    inputs, outputs = _ports(model)
    if sorted(inputs) != [EMBEDDINGS, LOGITS] or not {REFINED, STUDY} <= set(outputs):
        names = f"inputs {EMBEDDINGS} and {LOGITS} and outputs {REFINED} and {STUDY}"
        refuse_graph(SEQUENCE, f"has inputs {inputs} and outputs {outputs}, expected {names}")
    found = [str(model.input(name).partial_shape) for name in (EMBEDDINGS, LOGITS)]
    found += [str(model.output(name).partial_shape) for name in (REFINED, STUDY)]
    expected = [f"[1,?,{embedding_size}]", "[1,?,6]", "[1,?,6]", "[1,6]"]
    if found != expected:
        ports = f"{EMBEDDINGS}, {LOGITS}, {REFINED} and {STUDY}"
        refuse_graph(SEQUENCE, f"has {ports} of {', '.join(found)}, expected {', '.join(expected)}")


def _ports(model: Any) -> tuple[list[str], list[str]]:
    """Return the names of the inputs, in order, and of the outputs, sorted."""
    inputs = [name for port in model.inputs for name in port.get_names()]
    return inputs, sorted(name for port in model.outputs for name in port.get_names())


def refuse_graph(name: str, reason: str, cause: Exception | None = None) -> NoReturn:
    """Raise BundleError for one of a bundle's graphs."""
    msg = f"model bundle: {name}: {reason}. Export the model again"
    raise BundleError(msg) from cause
