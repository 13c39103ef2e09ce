"""``hemoscope info``: the card at once, without an inference engine."""

import io
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from hemoscope import cli
from hemoscope.inference.bundle import ModelBundle
from hemoscope.inference.card import FederationRecord, LabelScore, ModelCard, ScoreTable, SequenceRule
from hemoscope.labels import PerLabel
from hemoscope.reports.card_table import print_card


def test_the_card_is_shown_with_scores_thresholds_data_and_limits(
    tiny_bundle: Path, loaded_bundle: ModelBundle, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    assert cli.main(["info", str(tiny_bundle)]) == 0
    text = capsys.readouterr().out
    for fact in (
        "tiny 1.0",
        loaded_bundle.sha256,
        "Six linear functions of three window means.",
        "Any hemorrhage",
        "established",
        "fixed",
        "Immediate when Any hemorrhage reaches 0.90 in the study: specificity 0.99",
        "0.900 (0.800-0.950)",
        "3 (2)",
        "10 slices of 5 patients, scored by slice",
        "phantoms 1, Apache-2.0",
        "For tests alone.",
        "Not a medical device.",
    ):
        assert fact in text, fact


@pytest.mark.parametrize(
    ("sequence", "words"),
    [
        (None, "Slices are scored one by one; the study's score is the mean of the highest 15 mm of slices."),
        ("sequence", "Slices are scored beside all others of their series; the study's score is a network's own."),
        ("study_rule", "beside all others of their series; the study's score is the mean of the highest 15 mm"),
    ],
)
def test_the_card_states_how_slices_become_a_study(
    make_card: Callable[..., ModelCard], sequence: Any, words: str
) -> None:
    rule = None if sequence is None else SequenceRule(embedding_size=3, study_scores=sequence)
    text = io.StringIO()
    print_card(make_card(sequence=rule), "0" * 64, Console(file=text, width=120))
    assert words in text.getvalue()


def test_a_federation_states_who_trained_how_and_what_protected_them(make_card: Callable[..., ModelCard]) -> None:
    record = FederationRecord(
        sites=4,
        rounds=6,
        local_epochs=2,
        strategy="fedprox",
        batch_norm="fixed",
        weighting="uniform",
        secure_aggregation=True,
        epsilon=512.25,
        delta=1e-5,
        patients=75,
        slices=2814,
        personalised=True,
    )
    private, plain = io.StringIO(), io.StringIO()
    print_card(make_card(federation=record), "0" * 64, Console(file=private, width=120))
    for fact in (
        "Sites: 4; images stayed there",
        "Rounds: 6, of 2 local epochs each",
        "Strategy: fedprox, weighted by uniform, batch norm fixed",
        "Secure aggregation: yes",
        "Differential privacy: epsilon 512, delta 1e-05, for whole sites",
        "Slices: 2814",
        "Patients: 75",
        "Personalised: at one site",
    ):
        assert fact in private.getvalue()
    open_record = replace(
        record, secure_aggregation=False, epsilon=None, delta=None, patients=None, slices=None, personalised=False
    )
    print_card(make_card(federation=open_record), "0" * 64, Console(file=plain, width=120))
    for fact in (
        "no: the server saw each site's updates",
        "privacy: none",
        "Patients: not reported",
        "Personalised: no",
    ):
        assert fact in plain.getvalue()


def test_the_hash_stands_whole_on_its_line_at_any_width(make_card: Callable[..., ModelCard]) -> None:
    text = io.StringIO()
    print_card(make_card(), "a" * 64, Console(file=text, width=40))
    assert f"sha256 {'a' * 64}" in text.getvalue().splitlines()


def test_a_model_of_one_place_has_no_section_on_a_federation(make_card: Callable[..., ModelCard]) -> None:
    text = io.StringIO()
    print_card(make_card(), "0" * 64, Console(file=text, width=120))
    assert "Federation" not in text.getvalue()


def test_json_is_the_card_and_the_sha256_of_the_bundle(
    tiny_bundle: Path, loaded_bundle: ModelBundle, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["info", str(tiny_bundle), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document.pop("sha256") == loaded_bundle.sha256
    assert document == json.loads((tiny_bundle / "card.json").read_text())


def test_a_label_that_is_not_established_and_a_score_without_a_number_give_a_reason(
    make_card: Callable[..., ModelCard],
) -> None:
    nothing = LabelScore(
        auroc=None, average_precision=None, ece=None, n_positive=0, n_positive_patients=0, reason="no positive slice"
    )
    scores = ScoreTable(
        name="s", description="d", level="slice", n_images=1, n_patients=1, labels=PerLabel.build(lambda _: nothing)
    )
    card = make_card(established=PerLabel.build(lambda label: label == "any"), scores=(scores,))
    console = Console(file=io.StringIO(), width=120)
    print_card(card, "0" * 64, console)
    text = console.file.getvalue()
    assert text.count("not established") == 5
    assert text.count("no positive slice") == 6


def test_a_folder_that_is_no_bundle_is_refused_with_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["info", str(tmp_path / "none")]) == 2
    assert "no such folder" in capsys.readouterr().err


def test_no_inference_engine_is_loaded(tiny_bundle: Path) -> None:
    code = (
        "import sys; from hemoscope import cli\n"
        f"cli.main(['info', {str(tiny_bundle)!r}])\n"
        "print([name for name in ('openvino', 'pydicom', 'gdcm', 'torch') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.splitlines()[-1] == "[]"
