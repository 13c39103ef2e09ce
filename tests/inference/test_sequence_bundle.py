"""A bundle with two graphs: refined slices, study scores of the second graph, and invalid bundles."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from hemoscope import cli
from hemoscope.errors import BundleError
from hemoscope.inference.bundle import ModelBundle, write_bundle
from hemoscope.inference.card import ModelCard, SequenceRule
from hemoscope.inference.engine import Engine, RawScores
from hemoscope.inference.predictor import Predictor
from hemoscope.inference.preprocess import model_input
from hemoscope.inference.probabilities import averaged, sequence_places, study_logits
from hemoscope.labels import Hemorrhage
from hemoscope.reports.findings_json import findings_schema
from hemoscope.testing.dicom_writer import write_series
from hemoscope.testing.phantom import Phantom, make_phantom
from hemoscope.volume import HounsfieldVolume

RULE = SequenceRule(embedding_size=3, study_scores="sequence")


def embedding_graph(graph: bytes, *, name: str = "embedding") -> bytes:
    """The tiny model, which also gives the mean of each of its three windows: (N, 3)."""
    model = onnx.load_from_string(graph)
    model.graph.node.append(helper.make_node("ReduceMean", ["means", "axes"], [name], keepdims=0))
    model.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 3]))
    return bytes(model.SerializeToString())


def sequence_graph(
    *, size: int = 3, labels: int = 6, inputs: tuple[str, str] = ("embeddings", "logits"), study: str = "study_logits"
) -> bytes:
    """Refined: half of each slice, half of the mean of all. Study: the highest refined, plus the mean embedding."""
    embeddings, logits = inputs
    nodes = [
        helper.make_node("ReduceMean", [logits, "slices"], ["mean"], keepdims=1),
        helper.make_node("Add", [logits, "mean"], ["sum"]),
        helper.make_node("Mul", ["sum", "half"], ["refined_logits"]),
        helper.make_node("ReduceMax", ["refined_logits", "slices"], ["highest"], keepdims=0),
        helper.make_node("ReduceMean", [embeddings, "both"], ["level"], keepdims=0),
        helper.make_node("Reshape", ["level", "shape"], ["shaped"]),
        helper.make_node("Add", ["highest", "shaped"], [study]),
    ]
    tensors = [
        numpy_helper.from_array(np.array([1]), "slices"),
        numpy_helper.from_array(np.array([1, 2]), "both"),
        numpy_helper.from_array(np.array([-1, 1]), "shape"),
        numpy_helper.from_array(np.array(0.5, dtype=np.float32), "half"),
    ]

    def port(name: str, shape: list[Any]) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

    graph = helper.make_graph(
        nodes,
        "series",
        [port(embeddings, [1, "t", size]), port(logits, [1, "t", labels])],
        [port("refined_logits", [1, "t", labels]), port(study, [1, labels])],
        tensors,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


Make = Callable[..., ModelBundle]


@pytest.fixture
def bundle_of(tmp_path: Path, make_card: Callable[..., ModelCard], make_graph: Callable[..., bytes]) -> Make:
    def build(
        *, rule: SequenceRule = RULE, graph: bytes | None = None, sequence: bytes | None = None, **card: Any
    ) -> ModelBundle:
        return write_bundle(
            tmp_path / "bundle",
            make_card(sequence=rule, **card),
            graph or embedding_graph(make_graph()),
            sequence=sequence or sequence_graph(),
        )

    return build


@pytest.fixture(scope="module")
def phantom() -> Phantom:
    return make_phantom(seed=1, shape=(9, 64, 64), bleeds=frozenset({Hemorrhage.INTRAPARENCHYMAL}))


def thin(phantom: Phantom, spacing: float) -> HounsfieldVolume:
    """The phantom with other distances between its slices."""
    positions = tuple(spacing * index for index in range(len(phantom.hounsfield)))
    return HounsfieldVolume(
        hounsfield=np.array(phantom.hounsfield),
        spacing_mm=(spacing, 1.0, 1.0),
        positions_mm=positions,
        orientation=None,
    )


def every_slice(predictor: Predictor, volume: HounsfieldVolume) -> RawScores:
    """What the slice network says of each slice."""
    preprocessing = predictor.bundle.card.preprocessing
    return predictor.engine.run(model_input(volume, index, preprocessing) for index in range(len(volume)))


def test_embeddings_are_kept_for_a_bundle_that_reads_series_alone(bundle_of: Make, loaded_bundle: ModelBundle) -> None:
    images = np.random.default_rng(0).random((7, 3, 32, 32), dtype=np.float32)
    scores = Engine(bundle_of(), threads=2).run(images)
    assert scores.embeddings == pytest.approx(images.mean(axis=(2, 3)), abs=1e-5)
    assert scores.maps is None
    assert Engine(loaded_bundle, threads=1).run(images).embeddings is None


@pytest.mark.parametrize("slices", [1, 2, 7, 240])
def test_a_series_of_any_length_is_read(bundle_of: Make, slices: int) -> None:
    draw = np.random.default_rng(slices)
    embeddings = draw.normal(size=(slices, 3)).astype(np.float32)
    logits = draw.normal(size=(slices, 6)).astype(np.float32)
    refined, study = Engine(bundle_of(), threads=2).run_sequence(embeddings, logits)
    expected = (logits + logits.mean(axis=0)) / 2
    assert refined == pytest.approx(expected, abs=1e-5)
    assert study == pytest.approx(expected.max(axis=0) + embeddings.mean(), abs=1e-5)


def test_thick_slices_get_the_scores_of_the_second_graph(bundle_of: Make, phantom: Phantom) -> None:
    predictor = Predictor(bundle_of(), threads=1)
    volume = thin(phantom, 5.0)
    scores = every_slice(predictor, volume)
    assert scores.embeddings is not None
    found, maps = predictor.probabilities(volume, maps=True)
    refined = (scores.logits + scores.logits.mean(axis=0)) / 2
    assert found.slice_logits == pytest.approx(refined, abs=1e-5)
    assert found.study_logits == pytest.approx(refined.max(axis=0) + scores.embeddings.mean(), abs=1e-5)
    assert maps is not None
    assert maps.mean(axis=(2, 3)) == pytest.approx(scores.logits, abs=1e-5)  # maps are of the slice network


def test_thin_slices_are_read_together_and_corrected_alike(bundle_of: Make, phantom: Phantom) -> None:
    predictor = Predictor(bundle_of(), threads=1)
    volume = thin(phantom, 1.25)
    scores = every_slice(predictor, volume)
    places = sequence_places(volume.positions_mm, 5.0)
    assert places.tolist() == [0, 0, 0, 0, 1, 1, 1, 1, 2]
    together = averaged(scores.logits, places)
    correction = (together.mean(axis=0) - together) / 2
    found, _ = predictor.probabilities(volume)
    assert found.slice_logits == pytest.approx(scores.logits + correction[places], abs=1e-5)


def test_the_card_may_leave_the_study_to_its_rule(bundle_of: Make, phantom: Phantom) -> None:
    bundle = bundle_of(rule=SequenceRule(embedding_size=3, study_scores="study_rule"))
    volume = thin(phantom, 5.0)
    found, _ = Predictor(bundle, threads=1).probabilities(volume)
    expected = study_logits(found.slice_logits, volume.positions_mm, bundle.card.study_rule)
    assert found.study_logits == pytest.approx(expected)


def test_a_bundle_from_before_sequences_is_read_as_it_was(
    predictor: Predictor, loaded_bundle: ModelBundle, phantom: Phantom
) -> None:
    volume = thin(phantom, 5.0)
    found, _ = predictor.probabilities(volume)
    assert (found.slice_logits == every_slice(predictor, volume).logits).all()
    expected = study_logits(found.slice_logits, volume.positions_mm, loaded_bundle.card.study_rule)
    assert (found.study_logits == expected).all()


def test_threads_do_not_change_what_the_second_graph_gives(bundle_of: Make, phantom: Phantom) -> None:
    bundle = bundle_of()
    one, two = (Predictor(bundle, threads=threads).probabilities(phantom.volume)[0] for threads in (1, 3))
    assert (one.slice_logits == two.slice_logits).all()
    assert (one.study_logits == two.study_logits).all()


def test_findings_of_such_a_bundle_are_valid_by_the_schema(
    bundle_of: Make, phantom: Phantom, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_series(phantom, tmp_path / "study", seed=1)
    bundle = bundle_of()
    words = ["predict", str(tmp_path / "study"), "--model", str(bundle.folder), "--threads", "1", "--format", "json"]
    assert cli.main(words) == 0
    document = json.loads(capsys.readouterr().out)
    jsonschema.Draft202012Validator(findings_schema()).validate(document)
    assert document["model"]["sha256"] == bundle.sha256
    assert len(document["studies"][0]["slices"]) == 9


@pytest.mark.parametrize(
    ("sequence", "words"),
    [
        (b"no graph", r"sequence.onnx: cannot be run: .*Export the model again"),
        (sequence_graph(inputs=("features", "logits")), r"sequence.onnx: has inputs \['features', 'logits'\]"),
        (sequence_graph(inputs=("embeddings", "scores")), "expected inputs embeddings and logits and outputs"),
        (sequence_graph(study="study"), r"outputs \['refined_logits', 'study'\]"),
        (sequence_graph(size=4), r"sequence.onnx: has .* of \[1,\?,4\], .*, expected \[1,\?,3\], "),
        (sequence_graph(labels=5), r"\[1,\?,5\], \[1,5\], expected .*\[1,\?,6\], \[1,6\]"),
    ],
)
def test_a_second_graph_with_other_ports_is_refused(bundle_of: Make, sequence: bytes, words: str) -> None:
    with pytest.raises(BundleError, match=words):
        Engine(bundle_of(sequence=sequence), threads=1)


def test_a_slice_graph_that_gives_no_fitting_embedding_is_refused(
    bundle_of: Make, make_graph: Callable[..., bytes]
) -> None:
    with pytest.raises(BundleError, match=r"model.onnx: has outputs \['logits', 'maps'\], but the card has a"):
        Engine(bundle_of(graph=make_graph()), threads=1)


def test_an_embedding_of_another_size_than_the_card_states_is_refused(bundle_of: Make) -> None:
    rule = SequenceRule(embedding_size=4, study_scores="sequence")
    with pytest.raises(BundleError, match=r"gives an embedding of \[1, 3\] for one slice, the card says \[1, 4\]"):
        Engine(bundle_of(rule=rule), threads=1)


def test_scores_that_are_no_numbers_are_refused(bundle_of: Make) -> None:
    engine = Engine(bundle_of(), threads=1)
    with pytest.raises(BundleError, match=r"sequence.onnx: gave a score that is not a finite number"):
        engine.run_sequence(np.zeros((2, 3), np.float32), np.full((2, 6), np.inf, np.float32))


@pytest.mark.parametrize(
    ("embeddings", "logits"), [((0, 3), (0, 6)), ((2, 3), (3, 6)), ((2, 4), (2, 6)), ((2, 3), (2, 5))]
)
def test_series_of_other_shapes_are_refused(
    bundle_of: Make, embeddings: tuple[int, int], logits: tuple[int, int]
) -> None:
    engine = Engine(bundle_of(), threads=1)
    with pytest.raises(ValueError, match=r"expected embeddings \(places, 3\) and logits \(places, 6\), got"):
        engine.run_sequence(np.zeros(embeddings, np.float32), np.zeros(logits, np.float32))


def test_a_bundle_without_a_second_graph_reads_no_series(loaded_bundle: ModelBundle) -> None:
    with pytest.raises(ValueError, match="this bundle has no sequence network"):
        Engine(loaded_bundle, threads=1).run_sequence(np.zeros((2, 3), np.float32), np.zeros((2, 6), np.float32))
