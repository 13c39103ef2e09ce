"""A bundle is read only if it is whole, of this format, and exactly what was written."""

import hashlib
import json
import shutil
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hemoscope.checksums import write_sums
from hemoscope.errors import BundleError
from hemoscope.inference.bundle import ModelBundle, load_bundle, write_bundle
from hemoscope.inference.calibration import Calibration, IsotonicCalibration, SliceRule, ThinSeriesRule
from hemoscope.inference.card import CalibrationTable, ModelCard, SequenceRule
from hemoscope.inference.probabilities import StudyProbabilities
from hemoscope.labels import LABELS, PerLabel

ONNX = b"\x08\x08\x3a\x00"  # a model of IR version 8 with an empty graph


@pytest.fixture
def folder(tiny_bundle: Path, tmp_path: Path) -> Path:
    """A copy of the tiny bundle that a test may damage."""
    return Path(shutil.copytree(tiny_bundle, tmp_path / "bundle"))


def edit(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    card = json.loads((folder / "card.json").read_text())
    change(card)
    (folder / "card.json").write_text(json.dumps(card))
    write_sums(folder, ["card.json"])


def test_a_written_bundle_reads_back_the_same(loaded_bundle: ModelBundle, make_card: Callable[..., ModelCard]) -> None:
    assert loaded_bundle.card == make_card(files=loaded_bundle.card.files)
    assert set(loaded_bundle.card.files) == {"model.onnx"}
    content = (loaded_bundle.folder / "card.json").read_bytes()
    assert loaded_bundle.sha256 == hashlib.sha256(content).hexdigest()


def test_the_graph_is_the_bytes_that_were_written(loaded_bundle: ModelBundle, make_graph: Callable[..., bytes]) -> None:
    assert loaded_bundle.read_graph() == make_graph()


def test_a_card_survives_json(make_card: Callable[..., ModelCard]) -> None:
    card = make_card(files={"model.onnx": "0" * 64})
    assert ModelCard.from_json(json.loads(json.dumps(card.to_json()))) == card


def test_a_card_may_hold_a_calibration_of_another_kind_for_each_label(make_card: Callable[..., ModelCard]) -> None:
    curve = IsotonicCalibration(logits=(-2.0, 1.0), probabilities=(0.1, 0.8))
    kinds = PerLabel.of([curve, *[Calibration(scale=1.5, bias=0.0)] * 5])
    card = make_card(calibration=CalibrationTable(slice=kinds, study=kinds))
    again = ModelCard.from_json(json.loads(json.dumps(card.to_json())))
    assert again == card
    assert card.to_json()["calibration"]["slice"]["any"] == {"logits": [-2.0, 1.0], "probabilities": [0.1, 0.8]}
    probabilities = StudyProbabilities.from_logits(np.zeros((1, 6)), positions_mm=[None], card=again)
    assert probabilities.slice_probabilities[0, 0] == pytest.approx(0.1 + 0.7 * 2 / 3)


def test_further_files_are_hashed_and_kept(tmp_path: Path, make_card: Callable[..., ModelCard]) -> None:
    bundle = write_bundle(tmp_path / "b", make_card(), ONNX, {"LICENSE.txt": b"CC BY 4.0"})
    assert (bundle.folder / "LICENSE.txt").read_bytes() == b"CC BY 4.0"
    (bundle.folder / "LICENSE.txt").write_bytes(b"none")
    with pytest.raises(BundleError, match=r"LICENSE.txt: SHA-256 is"):
        load_bundle(bundle.folder)


def test_writing_never_replaces_a_bundle(folder: Path, make_card: Callable[..., ModelCard]) -> None:
    with pytest.raises(BundleError, match="exists already"):
        write_bundle(folder, make_card(), ONNX)


def test_a_failed_write_leaves_nothing(tmp_path: Path, make_card: Callable[..., ModelCard]) -> None:
    card = make_card(description="x" * (1 << 20))  # the card would be too large to be read again
    with pytest.raises(BundleError, match="larger than"):
        write_bundle(tmp_path / "b", card, ONNX)
    assert list(tmp_path.iterdir()) == []


def test_a_changed_graph_is_refused(folder: Path) -> None:
    with (folder / "model.onnx").open("ab") as file:
        file.write(b"\0")
    with pytest.raises(BundleError, match=r"model.onnx: SHA-256 is .* Export the model again"):
        load_bundle(folder)


def test_a_graph_that_changes_after_loading_is_not_run(folder: Path) -> None:
    bundle = load_bundle(folder)
    (folder / "model.onnx").write_bytes(b"other")
    with pytest.raises(BundleError, match="SHA-256"):
        bundle.read_graph()


@pytest.mark.parametrize("name", ["other.onnx", "notes.txt"])
def test_a_file_that_the_card_does_not_list_is_refused(folder: Path, name: str) -> None:
    (folder / name).write_bytes(b"")
    with pytest.raises(BundleError, match=f"{name}: is not listed in the card"):
        load_bundle(folder)


def test_a_missing_graph_is_named(folder: Path) -> None:
    (folder / "model.onnx").unlink()
    with pytest.raises(BundleError, match=r"model.onnx: is listed in the card but is missing"):
        load_bundle(folder)


def test_a_folder_without_a_card_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"card.json: the bundle has no such file"):
        load_bundle(tmp_path)


def test_no_path_means_the_bundle_of_the_package(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hemoscope.inference.bundle.DEFAULT_BUNDLE", tiny_bundle)
    assert load_bundle().card.name == "tiny"
    monkeypatch.setattr("hemoscope.inference.bundle.DEFAULT_BUNDLE", tiny_bundle / "absent")
    with pytest.raises(BundleError, match=r"no such folder.*reinstall Hemoscope"):
        load_bundle()


def test_a_folder_that_is_not_there_is_named_without_its_path(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="absent: no such folder") as refused:
        load_bundle(tmp_path / "absent")
    assert str(tmp_path) not in str(refused.value)


def test_a_folder_in_place_of_the_graph_is_refused(folder: Path) -> None:
    (folder / "model.onnx").unlink()
    (folder / "model.onnx").mkdir()
    with pytest.raises(BundleError, match=r"model.onnx: the bundle has no such file"):
        load_bundle(folder)


@pytest.mark.parametrize("name", ["../model.onnx", "/etc/passwd", "a/b.txt", "..", "c:x", ".hidden", "card.json", ""])
def test_a_file_name_that_could_lead_elsewhere_is_refused(folder: Path, name: str) -> None:
    edit(folder, lambda card: card["files"].update({name: "0" * 64}))
    with pytest.raises(BundleError, match="File names must be plain"):
        load_bundle(folder)


def test_an_unknown_graph_is_refused_even_if_listed(folder: Path) -> None:
    edit(folder, lambda card: card["files"].update({"third.onnx": "0" * 64}))
    with pytest.raises(
        BundleError, match=r"third.onnx: this version runs only model-int8.onnx, model.onnx, sequence.onnx"
    ):
        load_bundle(folder)


SEQUENCE = SequenceRule(embedding_size=3, study_scores="sequence")


def test_a_graph_that_reads_a_series_is_kept_and_hashed(tmp_path: Path, make_card: Callable[..., ModelCard]) -> None:
    bundle = write_bundle(tmp_path / "b", make_card(sequence=SEQUENCE), ONNX, sequence=ONNX)
    assert bundle.card.sequence == SEQUENCE
    assert bundle.read_sequence() == ONNX
    (bundle.folder / "sequence.onnx").write_bytes(b"other")
    with pytest.raises(BundleError, match=r"sequence.onnx: SHA-256 is"):
        bundle.read_sequence()
    with pytest.raises(BundleError, match=r"sequence.onnx: SHA-256 is"):
        load_bundle(bundle.folder)


def test_a_bundle_without_a_graph_for_series_states_it(loaded_bundle: ModelBundle) -> None:
    assert loaded_bundle.read_sequence() is None
    assert loaded_bundle.card.sequence is None


def test_a_graph_for_series_and_what_the_card_states_about_it_must_come_together(
    tmp_path: Path, make_card: Callable[..., ModelCard]
) -> None:
    with pytest.raises(BundleError, match=r"sequence.onnx: the card has no settings for it.*Export"):
        write_bundle(tmp_path / "b", make_card(), ONNX, sequence=ONNX)
    with pytest.raises(BundleError, match=r"card.json: has a sequence, but lists no sequence.onnx.*Export"):
        write_bundle(tmp_path / "b", make_card(sequence=SEQUENCE), ONNX)
    assert list(tmp_path.iterdir()) == []


def test_a_card_from_before_sequences_splits_and_federations_is_still_valid(folder: Path) -> None:
    edit(folder, lambda card: (card.pop("sequence"), card.pop("split"), card.pop("federation")))
    card = load_bundle(folder).card
    assert card.sequence is None
    assert card.federation is None
    assert card.split is None


@pytest.mark.parametrize(
    ("sequence", "words"),
    [
        ({}, "card.sequence: keys missing embedding_size, study_scores"),
        ({"embedding_size": 3, "study_scores": "mean"}, "study_scores: expected sequence or study_rule, got 'mean'"),
        ({"embedding_size": 0, "study_scores": "sequence"}, "embedding_size must be 1 to 65536, got 0"),
        ({"embedding_size": 3.0, "study_scores": "sequence"}, "embedding_size: expected a whole number"),
        ({"embedding_size": 3, "study_scores": "sequence", "gru": 1}, "card.sequence: keys unknown gru"),
    ],
)
def test_a_sequence_that_differs_from_the_format_is_refused(folder: Path, sequence: dict[str, Any], words: str) -> None:
    edit(folder, lambda card: card.update(sequence=sequence))
    with pytest.raises(BundleError, match=f"card.json: .*{words}"):
        load_bundle(folder)


FEDERATION = {
    "sites": 4,
    "rounds": 6,
    "local_epochs": 1,
    "strategy": "fedavg",
    "batch_norm": "shared",
    "weighting": "slices",
    "secure_aggregation": False,
    "personalised": False,
}


def test_a_federation_in_the_card_is_kept(folder: Path) -> None:
    edit(folder, lambda card: card.update(federation={**FEDERATION, "epsilon": 3, "delta": 1e-5}))
    card = load_bundle(folder).card
    assert card.federation is not None
    assert (card.federation.sites, card.federation.epsilon, card.federation.patients) == (4, 3.0, None)
    assert ModelCard.from_json(card.to_json()) == card


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"sites": 0}, "sites of a federation must be at least 1, got 0"),
        ({"patients": 0}, "patients of a federation must be at least 1"),
        ({"rounds": 1.5}, "card.federation.rounds: expected a whole number"),
        ({"batch_norm": "none"}, "card.federation.batch_norm: expected shared or local or fixed"),
        ({"epsilon": 3.0}, "epsilon above 0 and a delta between 0 and 1, or neither of them, got 3.0 and None"),
        ({"epsilon": 0.0, "delta": 1e-5}, "got 0.0 and 1e-05"),
        ({"epsilon": 3.0, "delta": 1.0}, "got 3.0 and 1.0"),
        ({"hospital": "x"}, "card.federation: keys unknown hospital"),
    ],
)
def test_a_federation_that_differs_from_the_format_is_refused(folder: Path, change: dict[str, Any], words: str) -> None:
    edit(folder, lambda card: card.update(federation={**FEDERATION, **change}))
    with pytest.raises(BundleError, match=f"card.json: .*{words}"):
        load_bundle(folder)


def test_the_bundle_that_ships_was_trained_in_one_place() -> None:
    assert load_bundle().card.federation is None


def test_a_card_without_a_graph_is_refused(folder: Path) -> None:
    edit(folder, lambda card: card["files"].clear())
    with pytest.raises(BundleError, match=r"lists no model.onnx"):
        load_bundle(folder)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda c: c.update(format="hemoscope.bundle/2"), "card.format: expected 'hemoscope.bundle/1'"),
        (lambda c: c.pop("format"), "card.format: expected"),
        (lambda c: c.update(labels=c["labels"][::-1]), "label order"),
        (lambda c: c.pop("labels"), "card: keys missing labels"),
        (lambda c: c.update(colour="red"), "card: keys unknown colour"),
        (lambda c: c.pop("study_rule"), "card: keys missing study_rule"),
        (lambda c: c.update(name=3), "card.name: expected a text, got 3"),
        (lambda c: c["established"].update(any=1), "card.established.any: expected true or false, got 1"),
        (lambda c: c["established"].pop("subdural"), "card.established: keys missing subdural"),
        (lambda c: c["calibration"]["slice"]["any"].update(scale=-1), r"card.calibration.slice.any: calibration needs"),
        (lambda c: c["calibration"]["slice"]["any"].update(logits=[0]), r"slice.any: keys unknown logits"),
        (lambda c: c["calibration"]["slice"].update(any={"logits": [0, 0], "probabilities": [0, 1]}), "needs rising"),
        (lambda c: c["calibration"]["slice"]["any"].update(scale=True), "expected a finite number, got True"),
        (lambda c: c["calibration"]["study"]["any"].update(bias="0"), r"study.any.bias: expected a finite number"),
        (lambda c: c["calibration"]["study"]["any"].update(bias=10**400), "expected a finite number"),
        (lambda c: c["operating_points"]["urgent"].update(threshold=1), "a threshold must lie between 0 and 1"),
        (lambda c: c["operating_points"]["urgent"].update(speed=1), "card.operating_points.urgent: keys unknown speed"),
        (lambda c: c["study_rule"].update(kind="maximum"), "card.study_rule.kind: expected top_mean"),
        (lambda c: c["study_rule"].update(extent_mm=0), "card.study_rule: a study rule needs"),
        (lambda c: c["preprocessing"].update(crop="face"), "card.preprocessing: crop must be one of"),
        (lambda c: c["preprocessing"].pop("margin"), "card.preprocessing: preprocessing needs exactly the keys"),
        (lambda c: c["preprocessing"].update(size="big"), "card.preprocessing"),
        (lambda c: c["preprocessing"].update(size=32.5), "card.preprocessing.size: expected a whole number"),
        (lambda c: c["preprocessing"].update(windows=[40]), "card.preprocessing"),
        (lambda c: c["scores"][0].update(level="pixel"), r"card.scores\[0\].level: expected slice or patient"),
        (lambda c: c["scores"][0]["labels"]["any"].update(n_positive=1.5), "expected a whole number, got 1.5"),
        (lambda c: c.update(limits_of_use="none"), "card.limits_of_use: expected a list"),
        (lambda c: c.update(files=[]), "card.files: expected an object"),
    ],
)
def test_a_card_that_differs_from_the_format_is_refused_with_its_place(
    folder: Path, change: Callable[[dict[str, Any]], object], words: str
) -> None:
    edit(folder, change)
    with pytest.raises(BundleError, match=rf"model bundle: card.json: .*{words}.*Export the model again"):
        load_bundle(folder)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"{", "Expecting property name"),
        (b'{"\xff": 1}', "codec can't decode"),
        (b"[]", "card: expected an object"),
        (b"[" * 200_000, "nested too deeply"),
        (b'{"format": "hemoscope.bundle/1", "format": "x"}', "the key format occurs twice"),
        (b'{"format": NaN}', "NaN is not a number in JSON"),
        (b'{"format": ' + b"9" * 5000 + b"}", "limit"),
        (b" " * ((1 << 20) + 1), "is larger than 1048576 bytes"),
    ],
)
def test_a_card_that_is_no_small_plain_json_is_refused(folder: Path, content: bytes, words: str) -> None:
    (folder / "card.json").write_bytes(content)
    with pytest.raises(BundleError, match=words):
        load_bundle(folder)


def test_a_small_bundle_takes_little_memory_to_verify(folder: Path) -> None:
    """To read up to a limit must not reserve as much as the limit, which is half of a worker's memory or more."""
    tracemalloc.start()
    try:
        load_bundle(folder)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 16 << 20


def test_infinity_written_as_a_large_number_is_refused(folder: Path) -> None:
    path = folder / "card.json"
    path.write_text(path.read_text().replace('"bias": -0.25', '"bias": 1e999', 1))
    with pytest.raises(BundleError, match="finite number, got inf"):
        load_bundle(folder)


def test_optional_scores_may_be_omitted(folder: Path) -> None:
    edit(folder, lambda card: [card["scores"][0]["labels"][label].pop("reason") for label in LABELS])
    assert load_bundle(folder).card.scores[0].labels["any"].reason is None


def test_a_card_of_an_earlier_version_scores_every_slice_and_smooths_none(folder: Path) -> None:
    edit(folder, lambda card: [card.pop(name) for name in ("thin_series", "slice_rule")])
    card = load_bundle(folder).card
    assert (card.thin_series, card.slice_rule) == (None, None)


def test_a_card_keeps_the_rules_of_thin_series_and_smoothing(
    tmp_path: Path, make_card: Callable[..., ModelCard]
) -> None:
    rules = {"thin_series": ThinSeriesRule(step_mm=2.0, tolerance=0.1), "slice_rule": SliceRule(width_mm=7.5)}
    written = write_bundle(tmp_path / "b", make_card(**rules), ONNX)
    assert load_bundle(written.folder).card == written.card
    edit(written.folder, lambda card: card["thin_series"].update(step_mm=9.0))
    with pytest.raises(BundleError, match=r"card.thin_series: a thin-series rule needs a step up to 5 mm"):
        load_bundle(written.folder)


def test_the_card_is_not_to_be_changed(loaded_bundle: ModelBundle) -> None:
    with pytest.raises(TypeError):
        loaded_bundle.card.files["model.onnx"] = ""  # type: ignore[index]  # that is the point
    assert replace(loaded_bundle.card, version="2").version == "2"


def test_a_card_with_another_label_order_cannot_be_made(make_card: Callable[..., ModelCard]) -> None:
    with pytest.raises(ValueError, match="labels has label order"):
        make_card(labels=("any",))


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
@pytest.mark.parametrize("name", ["card.json", "model.onnx", "SHA256SUMS"])
def test_any_bit_of_a_bundle_that_flips_is_named(folder: Path, name: str, data: st.DataObject) -> None:
    whole = (folder / name).read_bytes()
    flipped = bytearray(whole)
    bit = data.draw(st.integers(0, 8 * len(whole) - 1), label="bit")
    flipped[bit // 8] ^= 1 << bit % 8
    (folder / name).write_bytes(flipped)
    try:
        with pytest.raises(BundleError, match=rf"{name}|SHA256SUMS"):
            load_bundle(folder)
    finally:
        (folder / name).write_bytes(whole)


def test_a_bundle_of_an_earlier_version_is_loaded_with_a_warning(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sha256 = load_bundle(folder).sha256
    assert caplog.text == ""
    (folder / "SHA256SUMS").unlink()
    assert load_bundle(folder).sha256 == sha256
    assert "The card of the model bundle bundle has no checksums" in caplog.text
