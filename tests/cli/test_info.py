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
from hemoscope.inference.calibration import (
    ConformalSets,
    PointPerformance,
    Proportion,
    SliceRule,
    ThinSeriesRule,
    UnsurePerformance,
    UnsureRule,
)
from hemoscope.inference.card import Estimate, FederationRecord, LabelScore, ModelCard, ScoreTable, SequenceRule
from hemoscope.labels import PerLabel
from hemoscope.reports.card_table import print_card, unsure_lines


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
        "Sensitivity and specificity: not measured.",
        "0.900 (0.800-0.950)",
        "3 (2)",
        "10 slices of 5 patients.",
        "phantoms 1, Apache-2.0",
        "For tests alone.",
        "Not a medical device.",
    ):
        assert fact in text, fact


@pytest.mark.parametrize(("kind", "start"), [("markdown", "# tiny 1.0\n"), ("html", "<!doctype html>")])
def test_the_card_is_printed_in_the_shape_of_an_applied_model_card(
    tiny_bundle: Path, loaded_bundle: ModelBundle, capsys: pytest.CaptureFixture[str], kind: str, start: str
) -> None:
    assert cli.main(["info", str(tiny_bundle), "--card", kind]) == 0
    text = capsys.readouterr().out
    assert text.startswith(start)
    for fact in (
        loaded_bundle.sha256,
        "Cautioned out-of-scope settings and use cases",
        "For tests alone.",
        "Not stated: ",
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


def test_the_card_states_which_thin_slices_are_scored_and_how_scores_are_smoothed(
    make_card: Callable[..., ModelCard],
) -> None:
    rules: dict[str, Any] = {
        "thin_series": ThinSeriesRule(step_mm=2.5, tolerance=0.05),
        "slice_rule": SliceRule(width_mm=7.5),
    }
    text, plain = io.StringIO(), io.StringIO()
    print_card(make_card(**rules), "0" * 64, Console(file=text, width=300))
    print_card(make_card(), "0" * 64, Console(file=plain, width=300))
    for words in (
        "Of thin slices, one every 2.5 mm is scored",
        "more than 0.05",
        "smoothed along the head by a Gaussian of 7.5",
    ):
        assert words in text.getvalue()
        assert words not in plain.getvalue()


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
    assert text.count("not established") == 2 * 5  # of a study, and of a slice
    assert text.count("no positive slice") == 6


def test_rates_on_held_out_patients_stand_with_interval_and_counts_and_those_in_sample_are_marked(
    make_card: Callable[..., ModelCard],
) -> None:
    card = make_card()
    in_sample = replace(card.operating_points.urgent, sensitivity=0.5, specificity=0.875)
    share = Proportion(value=0.8889, low=0.7394, high=0.9689, hits=32, rows=36, patients=36)
    found = PointPerformance(
        method="cross_fitted", sensitivity=share, specificity=replace(share, hits=30), precision=None
    )
    measured = replace(in_sample, performance=found)
    points = replace(
        card.operating_points, study=PerLabel.build(lambda label: measured if label == "any" else in_sample)
    )
    text = io.StringIO()
    print_card(replace(card, operating_points=points), "0" * 64, Console(file=text, width=160))
    lines = text.getvalue().splitlines()
    (line,) = [line for line in lines if line.startswith("Any hemorrhage") and "32 of 36" in line]
    assert "0.89 (0.74-0.97) 32 of 36" in line
    assert "0.50*" not in line
    assert sum("0.50*" in line and "0.88*" in line for line in lines) == 5
    assert "cross-fitted, each patient decided by thresholds fitted on the other patients" in text.getvalue()
    assert "with an asterisk, in sample" in text.getvalue()


def test_studies_are_counted_as_studies_and_calibration_stands_beside_its_reference(
    make_card: Callable[..., ModelCard],
) -> None:
    score = LabelScore(
        auroc=None,
        average_precision=None,
        ece=Estimate(value=0.0703, low=None, high=None),
        n_positive=36,
        n_positive_patients=36,
        n_negative=46,
        n_negative_patients=46,
        slope=Estimate(value=1.34, low=0.87, high=2.07),
        observed_expected=Estimate(value=0.993, low=0.848, high=1.162),
        ece_if_calibrated=Estimate(value=0.1055, low=None, high=None),
    )
    table = ScoreTable(
        name="s", description="d", level="patient", n_images=82, n_patients=82, labels=PerLabel.build(lambda _: score)
    )
    text = io.StringIO()
    print_card(make_card(scores=(table,)), "0" * 64, Console(file=text, width=120))
    for fact in ("82 studies of 82 patients.", "1.34 (0.87-2.07)", "0.99 (0.85-1.16)", "0.070 (0.105)", "46 (46)"):
        assert fact in text.getvalue(), fact


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


def test_a_card_states_when_a_study_is_unsure_and_how_often(make_card: Callable[..., ModelCard]) -> None:
    share = Proportion(value=0.9444, low=0.8134, high=0.9932, hits=34, rows=36, patients=36)
    found = UnsurePerformance(
        method="cross_fitted", unsure=share, not_low=share, not_high=share, low_without=None, high_with=share
    )
    used = ConformalSets(alpha=0.1, low=0.16, high=0.46, performance=found)
    rule = UnsureRule(alpha=0.1, sets=(ConformalSets(alpha=0.05, low=0.1, high=0.5), used))
    first, second = unsure_lines(rule)
    assert first.startswith(
        "Unsure: Any hemorrhage in the study from 0.16 to 0.46 (conformal, alpha 0.1): unsure 0.94 (0"
    )
    assert "not low of those with hemorrhage 0.94 (0.81-0.99) 34 of 36" in first
    assert "without hemorrhage of the low -" in first
    assert second == "Not in use: Any hemorrhage in the study from 0.10 to 0.50 (conformal, alpha 0.05)."
    assert not list(unsure_lines(make_card().unsure))


def test_the_strata_of_the_default_model_are_printed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    assert cli.main(["info"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "Strata: CT-ICH, out of fold, by slice" in said
    assert "outline: under 300 px 0.45 (0.14-0.80) 9 of 20 -" in said
