"""Local tuning: reported scores are cross-fitted, and the new bundle uses the fitted settings."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from hemoscope.errors import BundleError, ConfigError, DataError
from hemoscope.evaluation.calibrate import FITS
from hemoscope.evaluation.metrics import label_metrics
from hemoscope.evaluation.terminal_summary import tuning_summary
from hemoscope.evaluation.threshold_rules import RULES, ThresholdRule, parse_rule
from hemoscope.evaluation.thresholds import at_sensitivity, best_f_beta, youden
from hemoscope.evaluation.tuned_bundle import RECORD, TuningChoices, raw_logits, study_scores, tune_bundle, tuned_on
from hemoscope.evaluation.tuning import LevelSettings, ValidationScores, cross_fit, not_below, tune_level
from hemoscope.inference.bundle import ModelBundle, load_bundle, write_bundle
from hemoscope.inference.calibration import Calibration, IsotonicCalibration, SliceRule
from hemoscope.inference.card import SequenceRule, images_sha256, to_plain
from hemoscope.inference.card_statements import CardError
from hemoscope.inference.probabilities import calibrated, consistent
from hemoscope.labels import LABELS, PerLabel

Array = NDArray[np.float64]
Files = tuple[Path, Path]


def scores_of(bundle: ModelBundle, *, patients: int = 40, slices: int = 6, seed: int = 0) -> tuple[Array, Array]:
    """Served probabilities that are far too sure, and truth."""
    random = np.random.default_rng(seed)
    truth = (random.random((patients * slices, 6)) < 0.25).astype(float)
    truth[:, 0] = truth[:, 1:].max(axis=1)
    logits = 3 * (random.normal(size=truth.shape) + 2 * truth - 1) + 2
    card = bundle.card
    return consistent(calibrated(logits, card.calibration.slice), card.established), truth


def write_files(folder: Path, p: Array, y: Array, *, slices: int = 6) -> Files:
    header = ",".join(["image_id", "patient_id", *LABELS])
    one, two = folder / "p.csv", folder / "l.csv"
    for path, table in ((one, p), (two, y)):
        rows = (
            f"ID_{i},p{i // slices}," + ",".join("" if np.isnan(v) else f"{v:.9g}" for v in row)
            for i, row in enumerate(table)
        )
        path.write_text("\n".join([header, *rows]) + "\n")
    return one, two


@pytest.fixture
def files(tmp_path: Path, loaded_bundle: ModelBundle) -> Files:
    return write_files(tmp_path, *scores_of(loaded_bundle))


def choices(**changes: Any) -> TuningChoices:
    return TuningChoices(**{"group_column": "patient_id", "rounds": 20, **changes})


def settings_of(bundle: ModelBundle) -> LevelSettings:
    card = bundle.card
    return LevelSettings(
        calibration=card.calibration.slice, points=card.operating_points.slice, established=card.established
    )


def test_the_new_bundle_serves_the_fitted_probabilities_in_the_old_order(
    tmp_path: Path, files: Files, loaded_bundle: ModelBundle
) -> None:
    tuned = tune_bundle(loaded_bundle, *files, tmp_path / "new", choices(rule=ThresholdRule(kind="youden")))
    card = load_bundle(tmp_path / "new").card
    assert tuned.bundle.read_graph() == loaded_bundle.read_graph()
    p, y = scores_of(loaded_bundle)
    raw = raw_logits(p, loaded_bundle.card.calibration.slice)
    served = calibrated(raw, card.calibration.slice)
    for k in range(6):
        assert (np.diff(served[np.argsort(p[:, k], kind="stable"), k]) >= 0).all()
        assert label_metrics(served[:, k], y[:, k])["ece"] < label_metrics(p[:, k], y[:, k])["ece"]
    assert card.calibration.study == loaded_bundle.card.calibration.study
    assert card.operating_points.urgent == loaded_bundle.card.operating_points.urgent


def test_the_card_states_on_what_it_was_tuned_and_the_record_lies_beside_it(
    tmp_path: Path, files: Files, loaded_bundle: ModelBundle
) -> None:
    tuned = tune_bundle(loaded_bundle, *files, tmp_path / "new", choices(name="Our ward, 2025"))
    card = tuned.bundle.card
    assert card.version == "1.0+tuned"
    assert "tuned by Hemoscope" in card.description
    assert "Our ward, 2025: 240 images of 40 patients" in card.description
    assert json.loads((tmp_path / "new" / RECORD).read_text()) == tuned.record
    assert card.scores[-1].name == "Our ward, 2025, tuned, by slice"
    assert card.scores[-1].n_patients == 40
    assert tuned_on(load_bundle(tmp_path / "new")) == images_sha256(f"ID_{i}" for i in range(240))
    assert tuned_on(loaded_bundle) is None
    again = tune_bundle(tuned.bundle, *files, tmp_path / "again", choices())
    assert again.bundle.card.version == "1.0+tuned"


def test_the_error_gallery_of_the_old_thresholds_is_not_kept(
    tmp_path: Path, files: Files, loaded_bundle: ModelBundle
) -> None:
    error = CardError(level="slice", kind="missed", case=None, probability=0.1, types=(), strata=())
    old = replace(loaded_bundle, card=replace(loaded_bundle.card, errors=(error,)))
    tune_bundle(old, *files, tmp_path / "new", choices())
    assert load_bundle(tmp_path / "new").card.errors is None


def test_cross_fitted_scores_of_too_sure_predictions_are_better_than_before(
    tmp_path: Path, files: Files, loaded_bundle: ModelBundle
) -> None:
    record = tune_bundle(loaded_bundle, *files, tmp_path / "new", choices(rule=ThresholdRule(kind="youden"))).record
    for entry in record["levels"]["slice"]["labels"].values():
        assert entry["cross_fitted"]["log_loss"]["value"] < entry["before"]["log_loss"]["value"]
        assert entry["cross_fitted"]["ece"]["value"] < entry["before"]["ece"]["value"]
    summary, found = tuning_summary(record), record["levels"]["slice"]["labels"]["any"]["cross_fitted"]["recall"]
    assert "log loss" in summary
    ends = f"({found['low']:.2f}-{found['high']:.2f})"
    assert f"sensitivity {found['value']:.2f} {ends} {found['hits']} of {found['rows']}; specificity" in summary


def test_the_tuned_points_state_their_cross_fitted_performance(
    tmp_path: Path, files: Files, loaded_bundle: ModelBundle
) -> None:
    rule = ThresholdRule(kind="youden")
    tuned = tune_bundle(loaded_bundle, *files, tmp_path / "new", choices(rule=rule))
    point = load_bundle(tmp_path / "new").card.operating_points.slice["epidural"]
    p, y = scores_of(loaded_bundle)
    _, groups = np.unique([f"p{row // 6}" for row in range(240)], return_inverse=True)
    scores = ValidationScores(logits=raw_logits(p, loaded_bundle.card.calibration.slice), truth=y, groups=groups)
    decided = cross_fit(scores, settings_of(loaded_bundle), rule).decisions[:, 1]
    assert point.performance is not None
    assert point.performance.method == "cross_fitted"
    assert point.performance.sensitivity is not None
    found = point.performance.sensitivity
    positive = y[:, 1] == 1
    assert (found.hits, found.rows) == (int(decided[positive].sum()), int(positive.sum()))
    assert found.patients == len(np.unique(scores.groups[positive]))
    assert found.low < found.hits / found.rows < found.high
    recall = tuned.record["levels"]["slice"]["labels"]["epidural"]["cross_fitted"]["recall"]
    assert recall == to_plain(found)


def test_without_groups_the_points_keep_no_performance_as_intervals_would_be_too_narrow(
    tmp_path: Path, files: Files, loaded_bundle: ModelBundle
) -> None:
    card = tune_bundle(loaded_bundle, *files, tmp_path / "new", choices(group_column=None)).bundle.card
    assert all(point.performance is None for point in card.operating_points.slice.values)


def test_no_row_is_scored_by_a_fit_that_saw_its_group(loaded_bundle: ModelBundle) -> None:
    p, y = scores_of(loaded_bundle)
    groups = np.arange(240) // 6
    before, rule = settings_of(loaded_bundle), ThresholdRule(kind="youden")
    scores = ValidationScores(logits=raw_logits(p, loaded_bundle.card.calibration.slice), truth=y, groups=groups)
    one = cross_fit(scores, before, rule)
    changed = y.copy()
    changed[groups == 7, 2] = 1 - changed[groups == 7, 2]
    two = cross_fit(ValidationScores(logits=scores.logits, truth=changed, groups=groups), before, rule)
    np.testing.assert_array_equal(one.probabilities[groups == 7], two.probabilities[groups == 7])
    assert not np.array_equal(one.probabilities, two.probabilities)


def test_what_cannot_be_fitted_is_kept_and_reported(tmp_path: Path, loaded_bundle: ModelBundle) -> None:
    p, y = scores_of(loaded_bundle)
    y[:, 1] = 0
    record = tune_bundle(loaded_bundle, *write_files(tmp_path, p, y), tmp_path / "new", choices()).record
    entry = record["levels"]["slice"]["labels"]["epidural"]
    assert "0 groups with it; a fit needs 2" in entry["kept"]
    assert entry["calibration"] == {"scale": 1.5, "bias": -0.25}
    assert entry["threshold"] == pytest.approx(0.5)
    assert "not fitted:" in tuning_summary(record)


def test_a_threshold_without_a_rule_moves_so_that_the_same_scores_are_positive(loaded_bundle: ModelBundle) -> None:
    p, y = scores_of(loaded_bundle)
    scores = ValidationScores(
        logits=raw_logits(p, loaded_bundle.card.calibration.slice), truth=y, groups=np.arange(240) // 6
    )
    before = settings_of(loaded_bundle)
    tuned = tune_level(scores, before)
    assert "'fixed' cannot be applied again" in str(tuned.kept["any"])
    for k, label in enumerate(LABELS):
        old = before.calibration[label].apply(scores.logits[:, k]) >= before.points[label].threshold
        new = tuned.settings.calibration[label].apply(scores.logits[:, k]) >= tuned.settings.points[label].threshold
        np.testing.assert_array_equal(old, new)


def test_with_studies_the_study_level_is_tuned_and_urgent_is_never_below_any(
    tmp_path: Path, files: Files, loaded_bundle: ModelBundle
) -> None:
    rule = ThresholdRule(kind="specificity", target=1.0)
    tuned = tune_bundle(loaded_bundle, *files, tmp_path / "new", choices(study_column="patient_id", rule=rule))
    card = tuned.bundle.card
    assert tuned.record["levels"]["study"]["n"] == 40
    assert card.calibration.study != loaded_bundle.card.calibration.study
    assert card.operating_points.urgent.threshold >= card.operating_points.study["any"].threshold
    assert card.scores[-1].level == "patient"


def test_without_groups_it_warns_and_puts_no_interval_by_patient_into_the_card(
    tmp_path: Path, files: Files, loaded_bundle: ModelBundle
) -> None:
    tuned = tune_bundle(loaded_bundle, *files, tmp_path / "new", TuningChoices(rounds=20))
    assert tuned.record["n_groups"] is None
    assert "No patients are given" in tuning_summary(tuned.record)
    assert len(tuned.bundle.card.scores) == 1


def test_raw_logits_undo_the_cards_calibration(make_card: Callable[..., Any], loaded_bundle: ModelBundle) -> None:
    logits = np.random.default_rng(0).normal(size=(20, 6))
    card = loaded_bundle.card
    np.testing.assert_allclose(
        raw_logits(calibrated(logits, card.calibration.slice), card.calibration.slice), logits, atol=1e-8
    )


def test_a_study_of_two_patients_too_few_groups_and_a_taken_folder_are_refused(
    tmp_path: Path, files: Files, loaded_bundle: ModelBundle
) -> None:
    p, y = scores_of(loaded_bundle)
    scores = ValidationScores(
        logits=raw_logits(p, loaded_bundle.card.calibration.slice), truth=y, groups=np.arange(240) // 6
    )
    with pytest.raises(DataError, match="the study s belongs to several groups"):
        study_scores(scores, ["s"] * 240, loaded_bundle.card)
    few = write_files(tmp_path, p[:18], y[:18])
    with pytest.raises(DataError, match="cross-fitting in 5 folds"):
        tune_bundle(loaded_bundle, *few, tmp_path / "new", choices())
    full = write_files(tmp_path, p, y)
    with pytest.raises(BundleError, match="exists already"):
        tune_bundle(loaded_bundle, *full, tmp_path, choices())


def test_a_rule_written_into_a_card_is_read_back() -> None:
    p, y = np.linspace(0.05, 0.95, 20), np.arange(20) % 3 > 0
    assert parse_rule(at_sensitivity(p, y, 0.9).rule) == ThresholdRule(kind="sensitivity", target=0.9)
    assert parse_rule(best_f_beta(p, y, 2.0).rule) == ThresholdRule(kind="f-beta", target=2.0)
    assert parse_rule(youden(p, y).rule) == ThresholdRule(kind="youden")
    raised = not_below(youden(p, y), 0.99, p, y.astype(float))
    assert (raised.threshold, parse_rule(raised.rule)) == (0.99, ThresholdRule(kind="youden"))
    for kind in RULES:
        ThresholdRule(kind=kind, target=None if kind == "youden" else 0.7).point(p, y)


def test_wrong_rules_are_refused() -> None:
    with pytest.raises(ConfigError, match="unknown rule 'magic'"):
        ThresholdRule(kind="magic")
    with pytest.raises(ConfigError, match="needs a target above 0 and not above 1; got None"):
        ThresholdRule(kind="precision")
    with pytest.raises(ConfigError, match="needs no target"):
        ThresholdRule(kind="youden", target=0.5)
    with pytest.raises(ConfigError, match="needs the target beta"):
        ThresholdRule(kind="f-beta", target=0.0)
    for text in ("fixed", "precision >= 7", "sensitivity >= e"):
        with pytest.raises(DataError, match="cannot be applied again"):
            parse_rule(text)


def test_a_calibration_that_is_right_already_is_hardly_changed(loaded_bundle: ModelBundle) -> None:
    random = np.random.default_rng(1)
    served = random.normal(-1, 2, size=(6000, 6))
    truth = (random.random(served.shape) < 1 / (1 + np.exp(-served))).astype(float)
    identity = PerLabel.build(lambda _: Calibration(scale=1.0, bias=0.0))
    before = LevelSettings(
        calibration=identity,
        points=loaded_bundle.card.operating_points.slice,
        established=loaded_bundle.card.established,
    )
    scores = ValidationScores(logits=served, truth=truth, groups=np.arange(6000))
    for found in tune_level(scores, before).settings.calibration.values:
        assert found.scale == pytest.approx(1.0, abs=0.12)
        assert found.bias == pytest.approx(0.0, abs=0.15)


@pytest.mark.parametrize("method", FITS)
def test_every_method_is_written_to_the_card_and_served_from_it(
    tmp_path: Path, files: Files, loaded_bundle: ModelBundle, method: str
) -> None:
    tuned = tune_bundle(
        loaded_bundle, *files, tmp_path / "new", choices(method=method, rule=ThresholdRule(kind="youden"))
    )
    card = load_bundle(tmp_path / "new").card
    assert tuned.record["method"] == method
    p, y = scores_of(loaded_bundle)
    raw = raw_logits(p, loaded_bundle.card.calibration.slice)
    served = consistent(calibrated(raw, card.calibration.slice), card.established)
    for k, label in enumerate(LABELS):
        found = card.calibration.slice[label]
        assert isinstance(found, IsotonicCalibration if method == "isotonic" else Calibration)
        assert tuned.record["levels"]["slice"]["labels"][label]["calibration"] == to_plain(found)
        assert label_metrics(served[:, k], y[:, k])["log_loss"] < label_metrics(p[:, k], y[:, k])["log_loss"]
        order = np.argsort(raw[:, k], kind="stable")
        assert (np.diff(found.apply(raw[order, k])) >= 0).all()


def test_temperature_turns_one_knob_of_what_the_card_gave(loaded_bundle: ModelBundle) -> None:
    p, y = scores_of(loaded_bundle)
    before = settings_of(loaded_bundle)
    raw = raw_logits(p, before.calibration)
    scores = ValidationScores(logits=raw, truth=y, groups=np.arange(240) // 6)
    for label, found in tune_level(scores, before, method="temperature").settings.calibration.items():
        old = before.calibration[label]
        assert isinstance(found, Calibration)
        assert isinstance(old, Calibration)
        assert found.bias / old.bias == pytest.approx(found.scale / old.scale)


def test_a_bundle_with_an_isotonic_curve_is_not_tuned_again_and_an_unknown_method_is_refused(
    tmp_path: Path, files: Files, loaded_bundle: ModelBundle
) -> None:
    curved = tune_bundle(loaded_bundle, *files, tmp_path / "new", choices(method="isotonic")).bundle
    with pytest.raises(DataError, match="Tune the bundle that it was tuned from"):
        tune_bundle(curved, *files, tmp_path / "again", choices())
    with pytest.raises(DataError, match="unknown calibration method 'magic'"):
        tune_bundle(loaded_bundle, *files, tmp_path / "other", choices(method="magic"))


def test_with_an_isotonic_curve_a_threshold_without_a_rule_still_takes_what_it_took(loaded_bundle: ModelBundle) -> None:
    p, y = scores_of(loaded_bundle)
    before = settings_of(loaded_bundle)
    scores = ValidationScores(logits=raw_logits(p, before.calibration), truth=y, groups=np.arange(240) // 6)
    settings = tune_level(scores, before, method="isotonic").settings
    for k, label in enumerate(LABELS):
        old = before.calibration[label].apply(scores.logits[:, k]) >= before.points[label].threshold
        new = settings.calibration[label].apply(scores.logits[:, k]) >= settings.points[label].threshold
        assert new[old].all()


def test_the_study_level_is_tuned_on_what_the_model_gave_whole_series(
    tmp_path: Path, files: Files, loaded_bundle: ModelBundle
) -> None:
    p, y = scores_of(loaded_bundle, patients=60, slices=1, seed=3)
    (tmp_path / "series").mkdir()
    series = write_files(tmp_path / "series", p, y, slices=1)
    tuned = tune_bundle(
        loaded_bundle, *files, tmp_path / "new", choices(series_files=series, rule=ThresholdRule(kind="youden"))
    )
    study = tuned.record["levels"]["study"]
    assert study["n"] == 60
    assert (
        study["labels"]["any"]["cross_fitted"]["log_loss"]["value"]
        < study["labels"]["any"]["before"]["log_loss"]["value"]
    )


def test_a_model_with_a_network_for_studies_wants_its_own_study_scores(
    tmp_path: Path, files: Files, loaded_bundle: ModelBundle
) -> None:
    card = replace(loaded_bundle.card, sequence=SequenceRule(study_scores="sequence", embedding_size=8))
    bundle = replace(loaded_bundle, card=card)
    with pytest.raises(DataError, match="Give --series-predictions and --series-labels"):
        tune_bundle(bundle, *files, tmp_path / "new", choices(study_column="patient_id"))


def test_a_model_that_smooths_its_slices_wants_its_own_study_scores(
    tmp_path: Path, files: Files, loaded_bundle: ModelBundle
) -> None:
    bundle = replace(loaded_bundle, card=replace(loaded_bundle.card, slice_rule=SliceRule(width_mm=7.5)))
    with pytest.raises(DataError, match=r"smooths its slice scores.* Give --series-predictions and --series-labels"):
        tune_bundle(bundle, *files, tmp_path / "new", choices(study_column="patient_id"))


@pytest.mark.parametrize("method", FITS)
def test_smoothed_scores_are_tuned_as_the_others(
    tmp_path: Path, files: Files, loaded_bundle: ModelBundle, method: str
) -> None:
    """A served probability becomes the same new one, whether its slice was smoothed or not."""
    own = PerLabel.build(lambda _: Calibration(scale=2.5, bias=1.0))
    card = replace(loaded_bundle.card, slice_rule=SliceRule(width_mm=7.5, calibration=own))
    bundle = write_bundle(tmp_path / "old", card, loaded_bundle.read_graph())
    tuned = tune_bundle(bundle, *files, tmp_path / "new", choices(method=method)).bundle.card
    assert tuned.slice_rule is not None
    assert tuned.slice_rule.calibration is not None
    assert tuned.slice_rule.width_mm == 7.5
    served = np.linspace(0.05, 0.95, 19)[:, None].repeat(6, axis=1)
    alone = calibrated(raw_logits(served, card.calibration.slice), tuned.calibration.slice)
    smooth = calibrated(raw_logits(served, own), tuned.slice_rule.calibration)
    assert not np.allclose(alone, served, atol=1e-3)
    assert np.allclose(alone, smooth, atol=1e-9)
