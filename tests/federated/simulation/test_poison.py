"""Sites that work against the others: seen in the log of rounds, and borne by a robust strategy alone."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("flwr", reason="needs the extra: make setup-federated")

from flwr.app import Context, Message, RecordDict
from flwr.supercore.task_identity import TaskIdentity
from safetensors.numpy import load_file

from hemoscope.data.cache import Cache
from hemoscope.errors import FederationError
from hemoscope.federated.exchange.histograms import parse_histograms
from hemoscope.federated.exchange.pooled import pool
from hemoscope.federated.server.server_app import TrainingJob, run_part
from hemoscope.federated.simulation.poison import ScaledClient, flipped
from hemoscope.federated.simulation.simulated_nodes import NumberedIn, SimulatedClient, SimulatedSites, ask_numbers
from hemoscope.federated.simulation.simulated_sites import Partitioning, lay_out_sites, simulated_sites
from hemoscope.federated.site.client_app import make_client_app
from hemoscope.labels import LABELS

SITES = 3
NODES = (31, 12, 23)  # ids of nodes say nothing about which site they are
WIDE = {"max_norm": 1e6}


@pytest.fixture(autouse=True)
def identity(monkeypatch: pytest.MonkeyPatch) -> None:
    """Messages are made by somebody."""
    for name, value in (("_run_id", 7), ("_node_id", 1), ("_task_id", 1)):
        monkeypatch.setattr(TaskIdentity, name, value)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory, make_hospital: Callable[..., Cache]) -> Cache:
    """Eighteen phantoms."""
    return make_hospital(tmp_path_factory.mktemp("poison"), [f"p{number:02}" for number in range(18)])


@pytest.fixture
def federate(
    cache: Cache, local_grid: Callable[..., Any], small_federation: Callable[..., Any], tmp_path: Path
) -> Callable[..., Path]:
    """``federate(name, flipped=, scaled=, **federation)``: three sites of six phantoms in this process; the folder."""

    def run(name: str, *, flipped: tuple[int, ...] = (), scaled: tuple[int, ...] = (), **changes: Any) -> Path:
        folder = tmp_path / name
        lay_out_sites(cache, folder, Partitioning(sites=SITES, seed=3, uneven=(1.0, 1.0, 1.0)), threads=1)
        for file in folder.glob("sites/*/site.toml"):
            file.write_text(file.read_text() + "[policy]\nleast_cell = 1\n")
        honest = make_client_app(SimulatedSites(run=folder, flipped=frozenset(flipped)))
        app = SimulatedClient(app=ScaledClient(app=honest, scaled=NumberedIn(frozenset(scaled))))
        grid = local_grid(dict.fromkeys(NODES, app))
        for place, node in enumerate(NODES):
            grid.contexts[node] = Context(7, node, {"partition-id": place}, RecordDict(), {})
        experiment = {"run": {"split": "folds", "folds": 2}, "optimizer": {"learning_rate": 1e-3}}
        federation = small_federation(experiment=experiment, histograms={"least_cell": 1, "folds": "each"}, **changes)
        job = TrainingJob(federation=federation, part="fold-0", output=folder, sites=SITES, numbers=ask_numbers)
        run_part(job, grid, Context(7, 0, {}, RecordDict(), {}))
        return folder / "fold-0"

    return run


def rounds(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "rounds.jsonl").read_text().splitlines()]


def distance(folder: Path, other: Path) -> float:
    ours, theirs = (load_file(one / "weights.safetensors") for one in (folder, other))
    return float(np.sqrt(sum(((ours[name] - theirs[name]).astype(np.float64) ** 2).sum() for name in trained(ours))))


def trained(weights: dict[str, Any]) -> list[str]:
    return [name for name in weights if "running" not in name and "num_batches" not in name]


def test_a_scaled_update_is_named_in_the_log_by_the_number_of_its_site(federate: Callable[..., Path]) -> None:
    folder = federate("scaled", scaled=(2,), limits=WIDE)
    for record in rounds(folder):
        assert record["suspicious"]["2"]
        assert record["norms"]["2"] > 20 * max(record["norms"]["1"], record["norms"]["3"])


def test_a_scaled_update_ruins_the_mean_under_wide_limits_and_not_the_median(federate: Callable[..., Path]) -> None:
    robust = {"strategy": {"name": "median"}, "weighting": "uniform", "limits": WIDE}
    moved = distance(federate("poisoned", scaled=(2,), limits=WIDE), federate("clean"))
    borne = distance(federate("borne", scaled=(2,), **robust), federate("clean-median", **robust))
    assert moved > 10 * borne
    honest = max(max(one["norms"]["1"], one["norms"]["3"]) for one in rounds(federate("again", **robust)))
    assert borne < 4 * honest  # no further than an honest site goes in its rounds


def test_narrow_limits_leave_a_scaled_update_out_of_the_mean(federate: Callable[..., Path]) -> None:
    honest = max(one["norms"]["2"] for one in rounds(federate("clean")))
    folder = federate("bounded", scaled=(2,), limits={"max_norm": 5 * honest})
    for record in rounds(folder):
        assert record["used"] == [1, 3]
        assert "2" in record["refused"]


def test_turned_labels_are_the_opposite_where_known_and_unknown_where_not(
    hospital_cache: Cache, tmp_path: Path
) -> None:
    lay_out_sites(hospital_cache, tmp_path, Partitioning(sites=2), threads=1)
    site = simulated_sites(tmp_path)[0]
    honest, turned = site.cache().manifest, flipped(site).cache().manifest
    assert ((honest["any"] + turned["any"]) == 1).all()
    assert honest["image_id"].tolist() == turned["image_id"].tolist()


def test_a_site_with_turned_labels_learns_otherwise_and_reports_its_classes_exchanged(
    federate: Callable[..., Path],
) -> None:
    turned, honest = federate("turned", flipped=(2,)), federate("clean")
    reported = [rows_of_any(folder, site) for folder in (turned, honest) for site in (1, 2)]
    assert reported[0] == reported[2]
    assert reported[1] == (reported[3][1], reported[3][0])
    losses = [rounds(folder)[0]["losses"] for folder in (turned, honest)]
    assert losses[0]["1"] == pytest.approx(losses[1]["1"], rel=1e-4)
    assert losses[0]["2"] != pytest.approx(losses[1]["2"], rel=1e-2)


def rows_of_any(folder: Path, site: int) -> tuple[int, int]:
    """Positive and negative rows that a site reported of."""
    reported = json.loads((folder / "histograms.json").read_text())["score"][site - 1]["slices"]
    pooled = pool([parse_histograms(json.dumps(reported))])
    return pooled.positive[LABELS[0]].rows, pooled.negative[LABELS[0]].rows


def test_a_node_says_which_site_it_is_and_leaves_all_else_to_the_app(
    local_grid: Callable[..., Any], tmp_path: Path
) -> None:
    reports_of_unit: list[str] = []

    def app(message: Message, _context: Context) -> Message:
        reports_of_unit.append(message.metadata.message_type)
        return Message(RecordDict(), reply_to=message)

    grid = local_grid(dict.fromkeys(NODES, SimulatedClient(app=app)))
    for place, node in enumerate(NODES):
        grid.contexts[node] = Context(7, node, {"partition-id": place}, RecordDict(), {})
    assert ask_numbers(grid) == {"31": 1, "12": 2, "23": 3}
    assert not reports_of_unit
    grid.send_and_receive([Message(RecordDict(), dst_node_id=31, message_type="train")])
    assert reports_of_unit == ["train"]


def test_a_node_that_does_not_say_which_site_it_is_ends_the_simulation(local_grid: Callable[..., Any]) -> None:
    grid = local_grid(dict.fromkeys(NODES, SimulatedClient(app=lambda message, _context: message)))
    for place, node in enumerate(NODES):
        grid.contexts[node] = Context(7, node, {"partition-id": place}, RecordDict(), {})
    grid.drop = lambda node, _kind, _stage: node == 12
    with pytest.raises(FederationError, match="2 of 3 simulated sites answered"):
        ask_numbers(grid)
