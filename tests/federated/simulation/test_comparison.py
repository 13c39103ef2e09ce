"""Arms side by side: who learns from whom, who is measured on what, and what the report says."""

import json
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from hemoscope.data.cache import Cache
from hemoscope.errors import ConfigError, FederationError
from hemoscope.federated.simulation import comparison
from hemoscope.federated.simulation.arm_scores import ArmScores, read_arms
from hemoscope.federated.simulation.arms import ArmTask, learners_of, train_arm, train_arms
from hemoscope.federated.simulation.comparison import Budget, compare, differences, measure, read_run
from hemoscope.federated.simulation.comparison_page import (
    shown,
    shows_noninferiority,
    tables,
    verdict,
    write_comparison,
)
from hemoscope.federated.simulation.simulated_sites import Partitioning, lay_out_sites, parts_of_sites
from hemoscope.inference.calibration import StudyRule
from hemoscope.labels import LABELS
from hemoscope.training.data_splits import DataSplit

TWO = Partitioning(sites=2, seed=5)
FOLDS = {"run": {"split": "folds", "folds": 2}}
NAMES = [label.value for label in LABELS]


def write_scores(folder: Path, cache: Cache, images: tuple[str, ...], *, signal: float, seed: int) -> None:
    """Scores that know the truth more or less."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = cache.manifest[cache.manifest["image_id"].isin(images)]
    noise = np.random.default_rng(seed).normal(size=(len(rows), len(NAMES)))
    logits = pd.DataFrame(
        noise + signal * rows[NAMES].to_numpy(dtype=np.float64), columns=[f"logit_{n}" for n in NAMES]
    )
    table = rows[["image_id", "patient_id", "series_id", "index"]].reset_index(drop=True).assign(position_mm=0.0)
    pd.concat([table, logits], axis=1).to_csv(folder / "scores.csv", index=False)


@pytest.fixture
def federated_run(hospital_cache: Cache, small_federation: Callable[..., Any], tmp_path: Path) -> Callable[..., Path]:
    """``federated_run(name, epsilon=)``: a finished run over two sites of six phantoms; its scores are made up."""

    def build(name: str = "run", *, signal: float = 2.0, epsilon: float | None = None, seed: int = 5) -> Path:
        run = tmp_path / name
        federation = small_federation(experiment=FOLDS)
        sites = lay_out_sites(hospital_cache, run, Partitioning(sites=2, seed=seed), threads=1)
        (run / "federation.json").write_text(json.dumps(federation.to_json()))
        for number, (part, own) in enumerate(parts_of_sites(federation, sites).items()):
            images = tuple(image for one in own for image in one.test)
            (run / part).mkdir()
            if images:
                write_scores(run / part, hospital_cache, images, signal=signal, seed=number)
            (run / part / "part.json").write_text(json.dumps({"epsilon": epsilon, "seconds": 2.0}))
            line = {
                "number": 1,
                "losses": {"1": 0.5, "2": 0.7},
                "scores": {"auroc": {"slices": {"any": {"value": 0.8}}}},
            }
            (run / part / "rounds.jsonl").write_text(json.dumps(line) + "\n")
        return run

    return build


@pytest.fixture
def untrained(monkeypatch: pytest.MonkeyPatch, hospital_cache: Cache) -> list[ArmTask]:
    """Arms are not trained but scored at random; the tasks that were asked for."""
    asked: list[ArmTask] = []

    def pretend(tasks: list[ArmTask], **_options: Any) -> None:
        asked.extend(tasks)
        for number, task in enumerate(tasks):
            images = tuple(pd.read_csv(task.run / task.part / "scores.csv", dtype=str)["image_id"])
            write_scores(task.folder, hospital_cache, images, signal=1.0, seed=100 + number)

    monkeypatch.setattr(comparison, "train_arms", pretend)
    return asked


def test_the_pooled_arm_learns_from_all_sites_and_each_alone_from_its_own() -> None:
    assert learners_of(("pooled", "alone"), 3) == {
        "pooled": (1, 2, 3),
        "alone-1": (1,),
        "alone-2": (2,),
        "alone-3": (3,),
    }
    assert learners_of(("alone",), 2) == {"alone-1": (1,), "alone-2": (2,)}
    assert learners_of((), 2) == {}
    with pytest.raises(ConfigError, match=r"no such arm: each\. There are pooled and alone"):
        learners_of(("each",), 2)


def test_an_arm_learns_from_its_sites_and_scores_what_all_of_them_hold_out(
    federated_run: Callable[..., Path],
    hospital_cache: Cache,
    small_federation: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run, federation = federated_run(), small_federation(experiment=FOLDS)
    own = parts_of_sites(federation, comparison.simulated_sites(run))["fold-1"]
    task = ArmTask(
        arm="alone-2",
        part="fold-1",
        learners=(2,),
        federation=federation.to_json(),
        data=hospital_cache.folder,
        run=run,
        output=tmp_path / "report",
        threads=1,
    )
    learned: list[DataSplit] = []
    from hemoscope.federated.simulation import arms

    honest = arms.train_round

    def watched(network: Any, experiment: Any, cache: Cache, part: DataSplit, *rest: Any, **options: Any) -> Any:
        learned.append(part)
        return honest(network, experiment, cache, part, *rest, **options)

    monkeypatch.setattr(arms, "train_round", watched)
    train_arm(task)
    assert set(learned[0].train) == set(own[1].train)
    scored = pd.read_csv(task.folder / "scores.csv", dtype={"image_id": str})
    assert sorted(scored["image_id"]) == sorted([*own[0].test, *own[1].test])
    assert not set(learned[0].train) & set(scored["image_id"])
    assert json.loads((task.folder / "arm.json").read_text())["epochs"] == federation.rounds * federation.local_epochs
    assert not (task.folder / "crops").exists()
    before = (task.folder / "scores.csv").stat().st_mtime_ns
    reported: list[tuple[str, int, int]] = []
    train_arms([task], show=lambda *stage: reported.append(stage))
    assert (task.folder / "scores.csv").stat().st_mtime_ns == before
    assert reported == [("comparison: trainings", 1, 1)]


def test_values_are_scikit_learns_on_all_parts_together(
    federated_run: Callable[..., Path], untrained: list[ArmTask], hospital_cache: Cache, tmp_path: Path
) -> None:
    run = federated_run()
    report = compare(run, hospital_cache, tmp_path / "report", budget=Budget())
    assert report["parts"] == ["fold-0", "fold-1"]
    assert {(task.arm, task.part) for task in untrained} == {
        (arm, part) for arm in ("pooled", "alone-1", "alone-2") for part in ("fold-0", "fold-1")
    }
    scored = pd.concat([pd.read_csv(run / part / "scores.csv", dtype={"image_id": str}) for part in report["parts"]])
    joined = scored.merge(hospital_cache.manifest, on="image_id")
    expected = roc_auc_score(joined["any"].to_numpy(dtype=int), joined["logit_any"])
    found = report["levels"]["slice"]["any"]
    assert found["arms"]["federated"]["value"] == pytest.approx(expected, abs=1e-6)
    assert (found["rows"], found["patients"], found["positive_patients"]) == (36, 12, 6)
    arms, apart = found["arms"], found["differences"]
    mean = (arms["alone-1"]["value"] + arms["alone-2"]["value"]) / 2
    assert arms["mean of alone"]["value"] == pytest.approx(mean, abs=1e-5)
    assert apart["federated - mean of alone"]["value"] == pytest.approx(arms["federated"]["value"] - mean, abs=1e-5)
    assert sum(site["levels"]["slice"]["any"]["patients"] for site in report["sites"]) == 12


def test_other_federations_over_the_same_sites_stand_beside_it(
    federated_run: Callable[..., Path], untrained: list[ArmTask], hospital_cache: Cache, tmp_path: Path
) -> None:
    run, noisy = federated_run(), federated_run("noisy", signal=0.5, epsilon=12.0)
    options: dict[str, Any] = {"budget": Budget(kinds=())}
    report = compare(run, hospital_cache, tmp_path / "report", others={"dp": noisy}, **options)
    assert not untrained
    assert set(report["levels"]["study"]["any"]["differences"]) == {"dp - federated"}
    assert report["arms"]["dp"]["epsilon"] == 12.0
    assert report["arms"]["federated"]["epsilon"] is None
    paths = write_comparison(report, tmp_path / "report")
    assert [path.name for path in paths] == ["report.json", "table.md", "arms.png", "rounds.png", "epsilon.png"]
    assert all(path.read_bytes()[:4] == b"\x89PNG" for path in paths[2:])


def test_a_federation_over_other_sites_or_of_a_taken_name_is_refused(
    federated_run: Callable[..., Path], hospital_cache: Cache, tmp_path: Path
) -> None:
    run, other = federated_run(), federated_run("other", seed=9)
    options: dict[str, Any] = {"budget": Budget(kinds=())}
    with pytest.raises(FederationError, match="dp: other was not simulated over the same sites as run"):
        compare(run, hospital_cache, tmp_path / "report", others={"dp": other}, **options)
    with pytest.raises(FederationError, match="the name federated is an arm's already"):
        compare(run, hospital_cache, tmp_path / "report", others={"federated": run}, **options)


def test_a_run_that_is_not_finished_or_none_is_refused(
    federated_run: Callable[..., Path], hospital_cache: Cache, tmp_path: Path
) -> None:
    run = federated_run()
    (run / "fold-1" / "scores.csv").unlink()
    options: dict[str, Any] = {"budget": Budget(kinds=())}
    assert compare(run, hospital_cache, tmp_path / "report", **options)["parts"] == ["fold-0"]
    with pytest.raises(FederationError, match="run has scores of no part"):
        compare(run, hospital_cache, tmp_path / "report", only=("fold-1",), **options)
    with pytest.raises(FederationError, match=r"holds no federation\.json"):
        read_run(tmp_path)


def test_initial_weights_from_a_file_are_asked_for_by_their_path(federated_run: Callable[..., Path]) -> None:
    run = federated_run()
    record = json.loads((run / "federation.json").read_text())
    record["experiment"]["run"]["init"] = "site.safetensors"
    (run / "federation.json").write_text(json.dumps(record))
    with pytest.raises(ConfigError, match=r"began with the weights site\.safetensors. Say where they are: --init PATH"):
        read_run(run)
    assert read_run(run, init="/somewhere/site.safetensors").experiment.run.init == "/somewhere/site.safetensors"


def test_arms_of_other_slices_or_without_a_part_are_refused(
    federated_run: Callable[..., Path], hospital_cache: Cache, tmp_path: Path
) -> None:
    run, rule = federated_run(), StudyRule()
    images = tuple(pd.read_csv(run / "fold-0" / "scores.csv", dtype=str)["image_id"])
    write_scores(tmp_path / "less" / "fold-0", hospital_cache, images[1:], signal=1, seed=1)
    with pytest.raises(FederationError, match=r"less scored \d+ slices, not exactly the \d+ of federated"):
        read_arms({"federated": run, "less": tmp_path / "less"}, ["fold-0"], hospital_cache.manifest, rule)
    with pytest.raises(FederationError, match="less has no scores of fold-1"):
        read_arms({"less": tmp_path / "less"}, ["fold-0", "fold-1"], hospital_cache.manifest, rule)
    with pytest.raises(FederationError, match="Give the --data that it was trained on"):
        read_arms({"federated": run}, ["fold-0"], hospital_cache.manifest.iloc[:3], rule)


def test_arms_are_measured_on_the_same_slices_in_whatever_order_they_were_scored(
    federated_run: Callable[..., Path], hospital_cache: Cache, tmp_path: Path
) -> None:
    run = federated_run()
    table = pd.read_csv(run / "fold-0" / "scores.csv", dtype=str)
    (tmp_path / "shuffled" / "fold-0").mkdir(parents=True)
    table.sample(frac=1, random_state=1).to_csv(tmp_path / "shuffled" / "fold-0" / "scores.csv", index=False)
    arms = read_arms({"a": run, "b": tmp_path / "shuffled"}, ["fold-0"], hospital_cache.manifest, StudyRule())
    for level in arms.values():
        assert np.array_equal(level.logits["a"], level.logits["b"])


def test_differences_are_of_federated_arms_less_each_other_arm() -> None:
    found = differences(("federated", "dp", "pooled", "alone-1", "alone-2"), ("federated", "dp"))
    assert found["dp - mean of alone"] == {"dp": 1.0, "alone-1": -0.5, "alone-2": -0.5}
    assert found["dp - federated"] == {"dp": 1.0, "federated": -1.0}
    assert "pooled - alone-1" not in found
    assert all(sum(weights.values()) == 0 for weights in found.values())


def test_the_verdict_is_by_point_estimates_and_the_margin_alone() -> None:
    def report(pooled: float, alone: float) -> dict[str, Any]:
        apart = {"federated - pooled": {"value": pooled}, "federated - mean of alone": {"value": alone}}
        return {"margin": 0.02, "levels": {"slice": {"any": {"differences": apart}}}}

    assert verdict(report(-0.02, 0.001), "slice", "federated") == {"pooled": True, "mean of alone": True}
    assert verdict(report(-0.021, 0.0), "slice", "federated") == {"pooled": False, "mean of alone": False}


@pytest.mark.parametrize(("low", "shows"), [(-0.019, True), (-0.02, False), (None, None)])
def test_noninferiority_needs_the_whole_interval_above_minus_the_margin(low: float | None, shows: bool | None) -> None:
    apart = {"federated - pooled": {"value": 0.01, "low": low, "high": low and 0.1}}
    report = {"margin": 0.02, "levels": {"slice": {"any": {"differences": apart}}}}
    assert shows_noninferiority(report, "slice", "federated") is shows
    assert shows_noninferiority({**report, "levels": {"slice": {"any": {"differences": {}}}}}, "slice", "a") is None


def test_the_committed_records_are_what_the_kept_scores_give() -> None:
    experiments = Path(__file__).parents[3] / "experiments"
    code = runpy.run_path(str(experiments / "federated_intervals.py"))
    for name in ("federated", "federated-private"):
        folder = experiments / "results" / name
        found = json.loads(json.dumps(code["remeasured"](name)))
        assert found == json.loads((folder / "report.json").read_text())
        assert tables(found) == (folder / "table.md").read_text()


def test_a_difference_of_few_patients_keeps_its_value_without_an_interval() -> None:
    random = np.random.default_rng(1)
    truth = np.repeat((np.arange(20) < 4).astype(float), 3)[:, None].repeat(6, axis=1)
    logits = {arm: random.normal(size=truth.shape) for arm in ("federated", "pooled")}
    patients = tuple(f"p{number // 3}" for number in range(60))
    found = measure(ArmScores(logits=logits, truth=truth, patients=patients), ("federated",))["any"]
    apart, arms = found["differences"]["federated - pooled"], found["arms"]
    assert apart["value"] == pytest.approx(arms["federated"]["value"] - arms["pooled"]["value"], abs=2e-6)
    assert (apart["low"], apart["high"]) == (None, None)
    assert arms["federated"]["low"] < arms["federated"]["value"] < arms["federated"]["high"]


def test_what_cannot_be_measured_is_a_dash_in_the_table() -> None:
    assert shown(None) == "-"
    assert shown({"value": 0.5, "low": 0.25, "high": 0.75}) == "0.500 (0.250 to 0.750)"
    assert shown({"value": 0.5, "low": -0.25, "high": 0.75}, signed=True) == "+0.500 (-0.250 to +0.750)"
    assert shown({"value": 0.5, "low": None, "high": None}, signed=True) == "+0.500 (-)"
    one = ArmScores(logits={"federated": np.zeros((4, 6))}, truth=np.zeros((4, 6)), patients=("a", "a", "b", "b"))
    levels = {level: measure(one, ("federated",)) for level in ("slice", "study")}
    page = tables({"levels": levels, "sites": [], "arms": {"federated": {}}, "intervals": {"method": "DeLong"}})
    assert "| federated | - | - | - | - | - | - |" in page
