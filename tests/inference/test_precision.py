"""A reduced precision runs if the card accepts it or the user asks for it, is said, and is never a silent fallback."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hemoscope.errors import BundleError, ConfigError
from hemoscope.inference import engine as engine_module
from hemoscope.inference.bundle import GRAPH_INT8, ModelBundle, ModelCard, load_bundle, write_bundle
from hemoscope.inference.engine import Engine
from hemoscope.inference.precision import Precision, PrecisionTest, chosen_precision, supported_precisions

EVERY = frozenset({Precision.FLOAT32, Precision.BF16, Precision.INT8})


def reduced_test(precision: str, *, accepted: bool = True, time: float = 0.5) -> PrecisionTest:
    return PrecisionTest(
        precision=precision,  # type: ignore[arg-type]
        accepted=accepted,
        time=time,
        processor="one",
        data="some",
        slices=10,
        studies=2,
        auroc=0.001,
        slice=0.05,
        study=0.01,
        crossed=0,
    )


@pytest.fixture
def both_graphs(
    tmp_path: Path, make_card: Callable[..., ModelCard], make_graph: Callable[..., bytes]
) -> Callable[..., ModelBundle]:
    """A bundle whose graph in int8 gives zeros, so that a test sees which graph ran."""

    def write(**card: Any) -> ModelBundle:
        zeros = make_graph(weights=np.zeros((6, 4), np.float32))
        return write_bundle(tmp_path / "both", make_card(**card), make_graph(), int8=zeros)

    return write


def test_auto_takes_the_fastest_that_the_card_accepts_and_the_processor_has() -> None:
    tests = (
        reduced_test("bf16", time=0.5),
        reduced_test("int8", time=0.4),
        reduced_test("bf16", accepted=False, time=0.1),
    )

    def auto(tests: tuple[PrecisionTest, ...], supported: frozenset[Precision] = EVERY) -> Precision:
        return chosen_precision(Precision.AUTO, tests, has_int8=True, supported=supported)

    assert auto(tests) is Precision.INT8
    assert auto(tests, EVERY - {Precision.INT8}) is Precision.BF16
    assert auto(tests, frozenset({Precision.FLOAT32})) is Precision.FLOAT32
    assert auto((reduced_test("bf16", accepted=False),)) is Precision.FLOAT32
    assert auto(()) is Precision.FLOAT32


@pytest.mark.parametrize("precision", [Precision.BF16, Precision.INT8])
def test_a_precision_that_the_processor_lacks_is_an_error_that_names_it(precision: Precision) -> None:
    with pytest.raises(ConfigError, match=f"this processor lacks instructions for {precision.value}"):
        chosen_precision(precision, (reduced_test(precision.value),), has_int8=True, supported=EVERY - {precision})


def test_simulated_bf16_does_not_count_as_supported() -> None:
    capabilities = frozenset({"BF16", "INT8", "FP32"})
    assert Precision.BF16 not in supported_precisions(capabilities, frozenset({"avx512f"}))
    assert Precision.BF16 in supported_precisions(capabilities, frozenset({"avx512_bf16"}))
    assert supported_precisions(frozenset({"FP32"}), None) == {Precision.FLOAT32}


def test_the_engine_refuses_bf16_where_the_processor_lacks_it(
    loaded_bundle: ModelBundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_module, "_processor_flags", lambda: frozenset({"avx2"}))
    with pytest.raises(ConfigError, match="this processor lacks instructions for bf16"):
        Engine(loaded_bundle, threads=1, precision=Precision.BF16)
    assert Engine(loaded_bundle, threads=1).precision is Precision.FLOAT32


def test_int8_runs_its_own_verified_graph_and_says_so(
    both_graphs: Callable[..., ModelBundle], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_module, "supported_precisions", lambda *_: EVERY)
    bundle = both_graphs(precision=(reduced_test("int8"),))
    image = np.ones((1, 3, 32, 32), np.float32)
    exact, reduced, auto = (
        Engine(bundle, threads=1, precision=one) for one in (Precision.FLOAT32, Precision.INT8, Precision.AUTO)
    )
    assert (exact.precision, reduced.precision, auto.precision) == ("float32", "int8", "int8")
    assert exact.run(image).logits.any()
    assert not reduced.run(image).logits.any()
    (bundle.folder / GRAPH_INT8).write_bytes(b"other")
    with pytest.raises(BundleError, match=r"model-int8.onnx: SHA-256"):
        Engine(bundle, threads=1, precision=Precision.INT8)


def test_int8_without_such_a_graph_is_refused(loaded_bundle: ModelBundle) -> None:
    with pytest.raises(ConfigError, match="the model bundle has no graph in int8"):
        Engine(loaded_bundle, threads=1, precision=Precision.INT8)


def test_the_card_keeps_its_tests(both_graphs: Callable[..., ModelBundle]) -> None:
    tests = (reduced_test("bf16"), reduced_test("int8", accepted=False))
    assert load_bundle(both_graphs(precision=tests).folder).card.precision == tests


def test_bf16_of_the_shipped_model_is_near_float32() -> None:
    bundle = load_bundle()
    try:
        reduced = Engine(bundle, threads=1, precision=Precision.BF16)
    except ConfigError as error:
        pytest.skip(str(error))
    image = np.random.default_rng(0).random((1, *reduced.input_shape), dtype=np.float32)
    exact = Engine(bundle, threads=1, precision=Precision.FLOAT32).run(image).logits
    found = reduced.run(image).logits
    assert reduced._compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name() == "bf16"
    assert found == pytest.approx(exact, abs=1.0)
    assert (found != exact).any()


def test_the_shipped_card_accepts_only_what_its_differences_allow() -> None:
    for one in load_bundle().card.precision or ():
        assert one.accepted == (one.auroc <= 0.002 and one.crossed == 0)
    assert sum(path.stat().st_size for path in load_bundle().folder.iterdir()) <= 25_000_000
