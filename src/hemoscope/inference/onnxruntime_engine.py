"""Runs a bundle's slice graph with ONNX Runtime, on a GPU of NVIDIA, with the answers of ``Engine``.

The extra ``gpu`` brings ONNX Runtime; nothing imports it unless this engine is made. Scores are float32 without TF32,
which would round the factors of every product to ten bits. The sequence graph stays on the processor: it takes
milliseconds.
"""

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hemoscope.errors import ConfigError, MissingExtraError
from hemoscope.inference.bundle import GRAPH, ModelBundle
from hemoscope.inference.engine import (
    EMBEDDING,
    INPUT,
    LOGITS,
    MAPS,
    Answer,
    Engine,
    available_threads,
    compile_sequence,
    refuse_graph,
)
from hemoscope.inference.precision import Precision

CUDA = "CUDAExecutionProvider"
CPU = "CPUExecutionProvider"
_OPTIONS = {CUDA: {"use_tf32": "0"}}
_BATCH = 8  # slices at a time: one alone leaves a GPU idle


class OnnxRuntimeEngine(Engine):
    """As ``Engine``, on another device."""

    def __init__(self, bundle: ModelBundle, *, provider: str = CUDA, threads: int | None = None) -> None:
        """Load the bundle's graph on a device.

        Args:
            bundle: a verified bundle.
            provider: ONNX Runtime's name of the device.
            threads: for decoding; None takes the processors this process may use, eight at most.

        Raises:
            MissingExtraError: ONNX Runtime is not installed.
            ConfigError: it has no such device here.
            BundleError: the graph cannot be run.
        """
        preprocessing, rule = bundle.card.preprocessing, bundle.card.sequence
        self.threads = threads or available_threads()
        self.precision = Precision.FLOAT32
        self.input_shape = (preprocessing.channels, preprocessing.size, preprocessing.size)
        self._embedding_size = None if rule is None else rule.embedding_size
        self._session = _session(bundle, provider)
        self._sequence = None if rule is None else compile_sequence(bundle, rule.embedding_size)
        found = {port.name for port in self._session.get_outputs()}
        if missing := sorted({LOGITS, MAPS, *([] if rule is None else [EMBEDDING])} - found):
            refuse_graph(GRAPH, f"has no outputs {', '.join(missing)}")

    def _answers(self, inputs: Iterable[NDArray[np.float32]], *, maps: bool) -> Iterator[Answer]:
        """Yield the outputs for each input in order, in batches."""
        embedding = self._embedding_size is not None
        names = [LOGITS, *([MAPS] if maps else []), *([EMBEDDING] if embedding else [])]
        waiting = iter(inputs)
        while images := [self._checked(image) for image in islice(waiting, _BATCH)]:
            found = dict(zip(names, self._session.run(names, {INPUT: np.stack(images)}), strict=True))
            for place in range(len(images)):
                kept = {name: values[place].copy() for name, values in found.items()}
                yield Answer(kept[LOGITS], kept.get(MAPS), kept.get(EMBEDDING))


def _session(bundle: ModelBundle, provider: str) -> Any:
    """Load the verified bytes; never fall back to another device."""
    try:
        import onnxruntime
    except ModuleNotFoundError as error:
        raise MissingExtraError(package="onnxruntime", extra="gpu") from error
    lacking = f"this installation of ONNX Runtime cannot use {provider}. Install its driver, or use --device cpu"
    if provider not in onnxruntime.get_available_providers():
        raise ConfigError(lacking)
    try:
        session = onnxruntime.InferenceSession(bundle.read_graph(), providers=[(provider, _OPTIONS.get(provider, {}))])
    except RuntimeError as error:
        refuse_graph(GRAPH, f"cannot be run: {str(error).splitlines()[0]}", error)
    # ONNX Runtime goes on with the processor if a device cannot be used, and only logs it.
    if session.get_providers()[0] != provider:
        raise ConfigError(lacking)
    return session
