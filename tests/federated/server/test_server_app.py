"""A whole federation in one process: real client apps behind a grid that hands messages to them directly."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

pytest.importorskip("flwr", reason="needs the extra: make setup-federated")

from flwr.app import Context, RecordDict
from flwr.serverapp import ServerApp
from safetensors.numpy import load_file

from hemoscope.errors import FederationError
from hemoscope.federated.exchange.messages import EVALUATE, TRAIN
from hemoscope.federated.exchange.pooled import pool
from hemoscope.federated.exchange.shared_model import read_record
from hemoscope.federated.exchange.weights import initial_network
from hemoscope.federated.server.federated_card import read_histograms
from hemoscope.federated.server.server_app import Job, make_server_app, run_part
from hemoscope.federated.settings.federation import Federation, parse_federation
from hemoscope.federated.settings.site import Policy
from hemoscope.federated.site.local_round import RoundResult
from hemoscope.training.models.checkpoint import load_weights

pytestmark = pytest.mark.usefixtures("one_thread")

Build = Callable[..., Any]
SECURE = {"enabled": True}
COLLECT = "collect_masked_vectors"


def play(grid: Any, federation: Federation, output: Path, part: str = "split", **job: Any) -> Path:
    """Train a part; returns its folder."""
    job = {"sites": len(grid.apps), "patience": 0.0, **job}
    run_part(Job(federation=federation, part=part, output=output, **job), grid, Context(7, 1, {}, RecordDict(), {}))
    return output / part


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch, small_experiment: Build) -> Build:
    """``quick(...)``: a federation whose sites move every weight a little instead of training, and hold nothing out.

    For what the server does with answers, whatever they are.
    """

    def moved(network: Any, _experiment: Any, _cache: Any, part: Any, *_: Any, **__: Any) -> RoundResult:
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.add_(1e-3)
        return RoundResult(loss=0.5, slices=len(part.train), positives=1, steps=1, seconds=0.0)

    monkeypatch.setattr("hemoscope.federated.site.site_work.train_round", moved)
    record = small_experiment(run={"split": "folds", "folds": 0}).to_json()
    return lambda **changes: parse_federation({"name": "tiny", "rounds": 2, **changes, "experiment": record})


def rounds_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "rounds.jsonl").read_text().splitlines()]


def record_of(folder: Path) -> dict[str, Any]:
    record: dict[str, Any] = json.loads((folder / "part.json").read_text())
    return record


def furthest(one: Path, other: Path, name: str = "weights") -> float:
    """The largest difference of two networks' weights, in units of the largest weight of its tensor."""
    first, second = (load_file(folder / f"{name}.safetensors") for folder in (one, other))
    assert first.keys() == second.keys()
    floats = [key for key in first if first[key].size and first[key].dtype == np.float32]
    scale = {key: float(np.abs(first[key]).max()) + 1e-2 for key in floats}
    return max(float(np.abs(first[key] - second[key]).max()) / scale[key] for key in floats)


@pytest.mark.parametrize(
    ("batch_norm", "secure"), [("shared", False), ("local", False), ("fixed", False), ("shared", True), ("local", True)]
)
def test_sites_train_together_and_leave_a_run_behind(
    local_sites: Build, small_federation: Build, tmp_path: Path, batch_norm: str, secure: bool
) -> None:
    federation = small_federation(batch_norm=batch_norm, secure_aggregation={"enabled": secure})
    folder = play(local_sites(3), federation, tmp_path / "run")
    rounds = rounds_of(folder)
    assert [(line["number"], line["used"], line["void"]) for line in rounds] == [(n, [1, 2, 3], False) for n in (1, 2)]
    assert [set(line["losses"]) for line in rounds] == [{"1", "2", "3"}] * 2
    audit = [json.loads(line) for line in (tmp_path / "site-1" / "audit.jsonl").read_text().splitlines()]
    assert [line["round"] for line in audit] == sorted(line["round"] for line in audit)
    assert {line["round"] for line in audit} == {"1", "2"}
    record = record_of(folder)
    assert (record["sites"], record["rounds"], record["used"], record["secure_aggregation"]) == (3, 2, 6, secure)
    assert read_record(folder / "part.json", personalised=False).batch_norm == batch_norm
    network = initial_network(federation.experiment, 1)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    load_weights(network, folder / "weights.safetensors")
    assert any((tensor != before[name]).any() for name, tensor in network.state_dict().items())
    told = read_histograms(folder)
    assert (len(told.score.slices), len(told.validation.studies)) == (3, 3)
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == [
        "experiment.json",
        "federation.json",
        "split",
        "versions.json",
    ]


def test_a_masked_round_comes_to_what_a_round_in_the_clear_comes_to(
    local_sites: Build, small_federation: Build, tmp_path: Path
) -> None:
    limits = {
        "max_weight": 20,
        "max_norm": 10.0,
    }  # near what sites of nine slices send: the sum is rounded in their steps
    plain, masked = (
        play(
            local_sites(3, folder=tmp_path / name),
            small_federation(rounds=1, secure_aggregation=secure, limits=limits),
            tmp_path / name / "run",
        )
        for name, secure in (("plain", {}), ("masked", SECURE))
    )
    assert furthest(plain, masked) < 1e-5


@pytest.mark.parametrize(("batch_norm", "secure"), [("shared", False), ("local", False), ("shared", True)])
def test_a_server_that_was_killed_goes_on_as_if_nothing_had_been(
    local_sites: Build, small_federation: Build, tmp_path: Path, batch_norm: str, secure: bool
) -> None:
    limits = {"max_weight": 20, "max_norm": 10.0}
    federation = small_federation(batch_norm=batch_norm, secure_aggregation={"enabled": secure}, limits=limits)
    whole = play(local_sites(3, folder=tmp_path / "whole"), federation, tmp_path / "whole" / "run")
    grid = local_sites(3, folder=tmp_path / "broken")
    asked: list[int] = []

    def killed(_node: int, kind: str, stage: str) -> bool:
        asked.append(kind == TRAIN and stage in {"", COLLECT})
        if sum(asked) == 5:  # in the middle of round 2
            raise KeyboardInterrupt
        return False

    grid.drop = killed
    with pytest.raises(KeyboardInterrupt):
        play(grid, federation, tmp_path / "broken" / "run")
    assert not (tmp_path / "broken" / "run" / "split" / "part.json").exists()
    grid = local_sites(3, folder=tmp_path / "broken")  # the processes of the sites are new, too
    broken = play(grid, federation, tmp_path / "broken" / "run", resume=True)
    assert [line["number"] for line in rounds_of(broken)] == [1, 2]
    assert furthest(whole, broken) <= (1e-2 if secure else 0.0)  # masks are drawn, and rounded by chance


def test_a_log_that_lacks_the_last_round_is_mended(local_sites: Build, small_federation: Build, tmp_path: Path) -> None:
    grid, federation = local_sites(2), small_federation(histograms={"every": 1})

    def killed(_node: int, kind: str, _stage: str) -> bool:
        if kind == EVALUATE:
            raise KeyboardInterrupt
        return False

    grid.drop = killed
    with pytest.raises(KeyboardInterrupt):
        play(grid, federation, tmp_path / "run")
    grid.drop = lambda _node, _kind, _stage: False
    folder = play(grid, federation, tmp_path / "run", resume=True)
    assert [(line["number"], line["used"]) for line in rounds_of(folder)] == [(1, [1, 2]), (2, [1, 2])]
    assert record_of(folder)["used"] == 4


def test_a_server_that_was_killed_while_sites_scored_asks_for_scores_alone(
    local_sites: Build, small_federation: Build, tmp_path: Path
) -> None:
    federation = small_federation(histograms={"every": 0})
    grid = local_sites(2)

    def killed(_node: int, kind: str, _stage: str) -> bool:
        if kind == EVALUATE:
            raise KeyboardInterrupt
        return False

    grid.drop = killed
    with pytest.raises(KeyboardInterrupt):
        play(grid, federation, tmp_path / "run")
    grid.drop = lambda _node, kind, _stage: pytest.fail("trained again") if kind == TRAIN else False
    folder = play(grid, federation, tmp_path / "run", resume=True)
    assert len(read_histograms(folder).score.slices) == 2


def test_a_finished_part_is_left_as_it_is(local_sites: Build, quick: Build, tmp_path: Path) -> None:
    grid = local_sites(2)
    folder = play(grid, quick(), tmp_path / "run", "final")
    grid.trace.clear()
    play(grid, quick(), tmp_path / "run", "final", resume=True)
    assert not grid.trace
    assert len(rounds_of(folder)) == 2


def test_a_part_is_not_begun_twice_without_resume(local_sites: Build, quick: Build, tmp_path: Path) -> None:
    (tmp_path / "run" / "final").mkdir(parents=True)
    with pytest.raises(FederationError, match=r"run/final exists already. Go on with --resume"):
        play(local_sites(2), quick(), tmp_path / "run", "final")


def test_a_run_of_another_federation_is_not_gone_on_with(local_sites: Build, quick: Build, tmp_path: Path) -> None:
    play(local_sites(2), quick(), tmp_path / "run", "final")
    with pytest.raises(FederationError, match="holds a run of another federation"):
        play(local_sites(2), quick(rounds=4), tmp_path / "run", "final", resume=True)


@pytest.mark.parametrize("secure", [False, True])
def test_a_site_that_leaves_in_mid_round_is_left_out_and_comes_back(
    local_sites: Build, quick: Build, tmp_path: Path, secure: bool
) -> None:
    grid = local_sites(4)
    trained: list[int] = []

    def lost(node: int, kind: str, stage: str) -> bool:
        training = kind == TRAIN and stage in {"", COLLECT}
        trained.append(node) if training else None
        return training and node == 12 and trained.count(12) == 2

    grid.drop = lost
    federation = quick(rounds=3, secure_aggregation={"enabled": secure})
    folder = play(grid, federation, tmp_path / "run", "final")
    assert [line["used"] for line in rounds_of(folder)] == [[1, 2, 3, 4], [1, 3, 4], [1, 2, 3, 4]]
    assert [line["lost"] for line in rounds_of(folder)] == [[], [2], []]
    assert record_of(folder)["lost"] == 1


@pytest.mark.parametrize("secure", [False, True])
def test_a_void_round_is_tried_again_and_then_given_up(
    local_sites: Build, quick: Build, tmp_path: Path, secure: bool
) -> None:
    grid = local_sites(3)
    grid.drop = lambda node, kind, _stage: kind == TRAIN and node != 11
    federation = quick(retries=2, min_sites=2, secure_aggregation={"enabled": secure})
    with pytest.raises(FederationError, match=r"round 1 was void 3 times, .*2 of 3 sites lost.*--resume"):
        play(grid, federation, tmp_path / "run", "final")
    rounds = rounds_of(tmp_path / "run" / "final")
    assert [(line["number"], line["void"], line["used"]) for line in rounds] == [(1, True, [])] * 3
    grid.drop = lambda _node, _kind, _stage: False
    folder = play(grid, federation, tmp_path / "run", "final", resume=True)
    assert record_of(folder)["void"] == 3


def test_a_site_that_refuses_is_told_of_and_the_others_go_on(
    local_sites: Build, small_federation: Build, tmp_path: Path
) -> None:
    grid = local_sites(3)
    grid.apps[12] = local_sites(3, policy=Policy(secure_aggregation=True)).apps[12]
    folder = play(grid, small_federation(histograms={"every": 1}), tmp_path / "run")
    first = rounds_of(folder)[0]
    assert (first["used"], list(first["refused"])) == ([1, 3], ["2"])
    assert first["scores"]["refused"] == {"2": "This site trains with secure aggregation alone."}
    assert first["scores"]["sites"] == 2
    assert len(read_histograms(folder).score.slices) == 2


def test_folds_and_the_final_network_are_parts_of_one_run(
    local_sites: Build, small_federation: Build, tmp_path: Path
) -> None:
    federation = small_federation(experiment={"run": {"split": "folds", "folds": 2}}, rounds=1)
    grid, run = local_sites(2), tmp_path / "run"
    *folds, final = (play(grid, federation, run, part) for part in ("fold-0", "fold-1", "final"))
    for fold in folds:  # of a fold alone nothing is told
        assert read_histograms(fold).score.slices == ()
    every = pool(read_histograms(final).score.slices)
    assert every.rows == sum(len(pd.read_csv(site / "scores.csv")) for site in tmp_path.glob("site-*/tiny/fold-*"))
    assert every.rows == sum(3 * len(site.read_text().split()) for site in tmp_path.glob("site-*/patients.txt"))


def test_a_site_that_did_not_score_every_fold_tells_nothing_of_them_together(
    local_sites: Build, small_federation: Build, tmp_path: Path
) -> None:
    federation = small_federation(experiment={"run": {"split": "folds", "folds": 2}}, rounds=1)
    grid, run = local_sites(2), tmp_path / "run"
    final = [play(grid, federation, run, part) for part in ("fold-0", "final")][-1]
    assert read_histograms(final).score.slices == ()


def test_where_each_fold_is_told_of_the_final_network_has_nothing_to_tell(
    local_sites: Build, small_federation: Build, tmp_path: Path
) -> None:
    experiment = {"run": {"split": "folds", "folds": 2}}
    federation = small_federation(experiment=experiment, histograms={"folds": "each"}, rounds=1)
    fold, final = (play(local_sites(2), federation, tmp_path / "run", part) for part in ("fold-0", "final"))
    assert len(read_histograms(fold).score.slices) == 2
    assert not (final / "histograms.json").exists()
    assert not any("scores" in line for line in rounds_of(final))


def test_pooled_scores_stand_in_the_log(local_sites: Build, small_federation: Build, tmp_path: Path) -> None:
    experiment = {"run": {"split": "folds", "folds": 2}}
    federation = small_federation(
        experiment=experiment, histograms={"least_cell": 1, "every": 2, "folds": "each"}, rounds=3
    )
    folder = play(local_sites(2), federation, tmp_path / "run", "fold-0")
    first, second, third = rounds_of(folder)
    assert "scores" not in first
    for line in (second, third):
        found = line["scores"]["auroc"]["slices"]["any"]
        assert 0 <= found["low"] <= found["value"] <= found["high"] <= 1


@pytest.mark.parametrize("secure", [False, True])
def test_training_ends_at_the_privacy_budget(local_sites: Build, quick: Build, tmp_path: Path, secure: bool) -> None:
    privacy = {"noise_multiplier": 5.0, "clipping_norm": 0.1, "max_epsilon": 1.4}
    federation = quick(
        rounds=5, batch_norm="fixed", weighting="uniform", privacy=privacy, secure_aggregation={"enabled": secure}
    )
    folder = play(local_sites(3), federation, tmp_path / "run", "final")
    record, rounds = record_of(folder), rounds_of(folder)
    assert 0 < record["rounds"] < 5
    assert 0 < record["epsilon"] <= 1.4
    assert "max_epsilon = 1.4" in record["ended"]
    spent = [line["epsilon"] for line in rounds if "epsilon" in line]
    assert spent == sorted(spent)
    assert not any(line.get("losses") for line in rounds)


@pytest.mark.parametrize("secure", [False, True])
def test_a_budget_that_is_too_small_for_one_round_is_an_error(
    local_sites: Build, quick: Build, tmp_path: Path, secure: bool
) -> None:
    privacy = {"noise_multiplier": 1.0, "clipping_norm": 0.1, "max_epsilon": 0.1}
    federation = quick(batch_norm="fixed", weighting="uniform", privacy=privacy, secure_aggregation={"enabled": secure})
    with pytest.raises(FederationError, match="privacy budget is spent: 0 rounds are done"):
        play(local_sites(3), federation, tmp_path / "run", "final")


@pytest.mark.parametrize("secure", [False, True])
def test_with_privacy_a_round_without_one_of_the_sites_is_void(
    local_sites: Build, quick: Build, tmp_path: Path, secure: bool
) -> None:
    grid = local_sites(4)
    trained: list[int] = []

    def lost(node: int, kind: str, stage: str) -> bool:
        if kind == TRAIN and stage in {"", COLLECT} and node == 12:
            trained.append(node)
            return len(trained) == 2
        return False

    grid.drop = lost
    privacy = {"noise_multiplier": 1.0, "clipping_norm": 0.1}
    federation = quick(batch_norm="fixed", weighting="uniform", privacy=privacy, secure_aggregation={"enabled": secure})
    rounds = rounds_of(play(grid, federation, tmp_path / "run", "final"))
    assert [(line["number"], line["void"]) for line in rounds] == [(1, False), (2, True), (2, False)]
    assert rounds[0]["epsilon"] == rounds[1]["epsilon"] < rounds[2]["epsilon"]


def test_no_message_of_a_round_lies_around_after_it(local_sites: Build, quick: Build, tmp_path: Path) -> None:
    grid = local_sites(3)
    lives: list[float] = []
    answer = grid._answer
    grid._answer = lambda message: lives.append(message.metadata.ttl) or answer(message)
    play(grid, quick(round_timeout=17.0, secure_aggregation=SECURE), tmp_path / "run", "final")
    assert set(lives) == {17.0}


def test_a_run_waits_for_its_sites(local_sites: Build, quick: Build, tmp_path: Path) -> None:
    grid = local_sites(3)
    grid.away = {12, 13}
    shown: list[tuple[str, int, int]] = []

    def show(stage: str, done: int, total: int) -> None:
        shown.append((stage, done, total))
        grid.away = set()

    play(grid, quick(), tmp_path / "run", "final", patience=60.0, show=show)
    assert shown[0] == ("waiting for sites", 1, 3)
    assert shown[-1] == ("final: round", 2, 2)


def test_too_few_sites_are_an_error_and_enough_are_not(local_sites: Build, quick: Build, tmp_path: Path) -> None:
    grid = local_sites(3)
    grid.away = {12, 13}
    with pytest.raises(FederationError, match=r"1 of 3 sites came in 0 s, and 2 are needed"):
        play(grid, quick(), tmp_path / "run", "final")
    grid.away = {13}
    folder = play(grid, quick(), tmp_path / "run", "final", resume=True)
    assert rounds_of(folder)[0]["asked"] == [1, 2]


def test_the_server_app_trains_its_job(local_sites: Build, small_federation: Build, tmp_path: Path) -> None:
    job = Job(federation=small_federation(rounds=1), part="split", output=tmp_path / "run", sites=2)
    app = make_server_app(job)
    assert isinstance(app, ServerApp)
    app(local_sites(2), Context(7, 1, {}, RecordDict(), {}))
    assert (job.folder / "part.json").is_file()
