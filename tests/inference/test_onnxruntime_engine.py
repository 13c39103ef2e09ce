"""The same bundle on another device gives the same scores, and a device that cannot be used is an error."""

import sys
from importlib.util import find_spec

import numpy as np
import pytest

from hemoscope.errors import ConfigError, MissingExtraError
from hemoscope.inference.bundle import ModelBundle, load_bundle
from hemoscope.inference.engine import Engine, engine_on
from hemoscope.inference.onnxruntime_engine import CPU, CUDA, OnnxRuntimeEngine
from hemoscope.inference.precision import Precision

needs_onnxruntime = pytest.mark.skipif(
    find_spec("onnxruntime") is None, reason="needs the extra: pip install 'hemoscope[gpu]'"
)


def has_gpu() -> bool:
    if find_spec("onnxruntime") is None:
        return False
    import onnxruntime

    return CUDA in onnxruntime.get_available_providers()


@needs_onnxruntime
def test_the_tiny_model_scores_as_in_the_engine(loaded_bundle: ModelBundle) -> None:
    images = np.random.default_rng(0).random((11, 3, 32, 32), dtype=np.float32)
    found = OnnxRuntimeEngine(loaded_bundle, provider=CPU).run(images, maps=True)
    exact = Engine(loaded_bundle, threads=1, precision=Precision.FLOAT32).run(images, maps=True)
    assert found.logits == pytest.approx(exact.logits, abs=1e-5)
    assert found.maps == pytest.approx(exact.maps, abs=1e-5)


@needs_onnxruntime
@pytest.mark.parametrize("provider", [CPU, CUDA])
def test_the_shipped_model_agrees(provider: str) -> None:
    if provider == CUDA and not has_gpu():
        pytest.skip("no GPU that ONNX Runtime can use")
    bundle = load_bundle()
    engine = OnnxRuntimeEngine(bundle, provider=provider)
    images = np.random.default_rng(0).random((2, *engine.input_shape), dtype=np.float32)
    exact = Engine(bundle, threads=1, precision=Precision.FLOAT32).run(images).logits
    assert engine.run(images).logits == pytest.approx(exact, abs=1e-3)


@needs_onnxruntime
@pytest.mark.skipif(has_gpu(), reason="there is a GPU")
def test_a_device_that_cannot_be_used_is_an_error(loaded_bundle: ModelBundle) -> None:
    with pytest.raises(ConfigError, match="cannot use CUDAExecutionProvider"):
        OnnxRuntimeEngine(loaded_bundle)


def test_without_onnxruntime_the_extra_is_named(loaded_bundle: ModelBundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingExtraError, match="gpu"):
        OnnxRuntimeEngine(loaded_bundle)


def test_a_gpu_computes_in_float32_alone(loaded_bundle: ModelBundle) -> None:
    with pytest.raises(ConfigError, match="--device cuda computes in float32, got --precision bf16"):
        engine_on("cuda", loaded_bundle, threads=1, precision=Precision.BF16)
