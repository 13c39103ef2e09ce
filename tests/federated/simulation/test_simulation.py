"""A part in a process of its own: what it reports, how it fails, and (slow) a whole simulation on Ray."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

pytest.importorskip("flwr", reason="needs the extra: make setup-federated")

from hemoscope.data.cache import Cache
from hemoscope.errors import ConfigError, FederationError
from hemoscope.federated.simulation import simulation
from hemoscope.federated.simulation.simulated_sites import Partitioning, lay_out_sites, parts_of_sites, site_scores_path
from hemoscope.federated.simulation.simulation import Machine, simulate

TWO = Partitioning(sites=2, seed=5)
FOLDS = {"run": {"split": "folds", "folds": 2}}

# Instead of Flower's simulation: leaves what a server and its sites leave, and reports. It imports nothing of ours, for
# that would take seconds: what each site scores stands in a plan.
STUB = """
import json, os, sys
from pathlib import Path

task = json.load(sys.stdin)
print("chatter of Flower")
run, part = Path(task["run"]), task["part"]
pipe = open(task["pipe"], "w")
(run / part).mkdir(exist_ok=True)
(run / part / "task.json").write_text(json.dumps({**task, "environment": dict(os.environ)}))
for number in (1, 2):
    print(json.dumps({"stage": f"{part}: round", "done": number, "total": 2}), file=pipe, flush=True)
    with (run / part / "rounds.jsonl").open("a") as log:
        log.write(json.dumps({"number": number}) + "\\n")
STUB_ENDS
for path, images in json.loads((Path(__file__).parent / "plan.json").read_text())[part].items():
    Path(path).parent.mkdir(parents=True)
    Path(path).write_text("image_id,patient_id\\n" + "".join(f"{image},{image[:2]}\\n" for image in images))
(run / part / "part.json").write_text("{}")
print(json.dumps({"failed": "", "kind": ""}), file=pipe, flush=True)
"""


@pytest.fixture
def stub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hospital_cache: Cache, small_federation: Callable[..., Any]
) -> Callable[[str], None]:
    """``stub("")`` puts the stub in the place of Flower; the text is run after its rounds."""

    def write(ends: str) -> None:
        (tmp_path / "stub_part.py").write_text(STUB.replace("STUB_ENDS", ends))
        federation = small_federation(experiment=FOLDS)
        sites = lay_out_sites(hospital_cache, tmp_path / "run", TWO, threads=1)
        plan = {
            name: {
                str(site_scores_path(federation, site, name)): own.test for site, own in zip(sites, parts, strict=True)
            }
            for name, parts in parts_of_sites(federation, sites).items()
        }
        (tmp_path / "plan.json").write_text(json.dumps(plan))
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))
        monkeypatch.setattr(simulation, "_MODULE", "stub_part")

    return write


def test_every_part_reports_its_rounds_and_leaves_all_scores(
    stub: Callable[[str], None], hospital_cache: Cache, small_federation: Callable[..., Any], tmp_path: Path
) -> None:
    stub("")
    shown: list[tuple[str, int, int]] = []
    reported: list[tuple[str, int]] = []
    done = simulate(
        small_federation(experiment=FOLDS),
        hospital_cache,
        tmp_path / "run",
        partitioning=TWO,
        only=("fold-0", "fold-1"),
        show=lambda *stage: shown.append(stage),
        report_round=lambda part, record: reported.append((part, record["number"])),
    )
    assert done == ("fold-0", "fold-1")
    assert reported == [("fold-0", 1), ("fold-0", 2), ("fold-1", 1), ("fold-1", 2)]
    assert shown == [(f"{part}: round", number, 2) for part in done for number in (1, 2)]
    scored = [pd.read_csv(tmp_path / "run" / part / "scores.csv") for part in done]
    assert sorted(pd.concat(scored)["image_id"]) == sorted(hospital_cache.manifest["image_id"])
    assert (tmp_path / "run" / "simulation.log").read_text() == "chatter of Flower\n" * 2


def test_nothing_of_flower_or_ray_reports_home_or_listens_to_others(
    stub: Callable[[str], None], hospital_cache: Cache, small_federation: Callable[..., Any], tmp_path: Path
) -> None:
    stub("")
    simulate(small_federation(experiment=FOLDS), hospital_cache, tmp_path / "run", partitioning=TWO, only=("fold-0",))
    task = json.loads((tmp_path / "run" / "fold-0" / "task.json").read_text())
    wanted = {
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        "RAY_AUTH_MODE": "token",
    }
    assert {name: task["environment"].get(name) for name in wanted} == wanted
    assert len(task["environment"]["RAY_AUTH_TOKEN"]) == 64
    assert task["environment"]["FLWR_HOME"].startswith(task["folder"])
    assert not Path(task["folder"]).exists()
    assert len(task["folder"]) < 30  # Ray's sockets lie in it, and their names end at 107 letters


def test_a_part_that_is_done_is_left_alone_and_one_that_stopped_goes_on(
    stub: Callable[[str], None], hospital_cache: Cache, small_federation: Callable[..., Any], tmp_path: Path
) -> None:
    federation = small_federation(experiment=FOLDS)
    stub("raise SystemExit")
    with pytest.raises(FederationError, match="fold-0: the simulation's process ended without a word"):
        simulate(federation, hospital_cache, tmp_path / "run", partitioning=TWO, only=("fold-0",))
    with pytest.raises(FederationError, match=r"run/fold-0 exists already\. Go on with --resume"):
        simulate(federation, hospital_cache, tmp_path / "run", partitioning=TWO, only=("fold-0",))
    stub("")
    reported: list[int] = []
    for _ in range(2):
        simulate(
            federation,
            hospital_cache,
            tmp_path / "run",
            partitioning=TWO,
            only=("fold-0",),
            resume=True,
            report_round=lambda _part, record: reported.append(record["number"]),
        )
    assert reported == [1, 2]  # of the second try alone; the third had nothing to do
    assert json.loads((tmp_path / "run" / "fold-0" / "task.json").read_text())["resume"] is True


@pytest.mark.parametrize(("kind", "raised"), [("ConfigError", ConfigError), ("DataError", FederationError)])
def test_what_goes_wrong_in_the_process_is_raised_here(
    stub: Callable[[str], None],
    hospital_cache: Cache,
    small_federation: Callable[..., Any],
    tmp_path: Path,
    kind: str,
    raised: type[Exception],
) -> None:
    stub(f'print(json.dumps({{"failed": "no data there", "kind": "{kind}"}}), file=pipe, flush=True); raise SystemExit')
    with pytest.raises(raised, match="fold-0: no data there"):
        simulate(
            small_federation(experiment=FOLDS), hospital_cache, tmp_path / "run", partitioning=TWO, only=("fold-0",)
        )


def test_what_the_process_started_ends_with_it(
    stub: Callable[[str], None], hospital_cache: Cache, small_federation: Callable[..., Any], tmp_path: Path
) -> None:
    stub(
        "import subprocess; child = subprocess.Popen(['sleep', '600']); (run / 'child').write_text(str(child.pid));"
        "raise SystemExit"
    )
    with pytest.raises(FederationError, match="ended without a word"):
        simulate(
            small_federation(experiment=FOLDS), hospital_cache, tmp_path / "run", partitioning=TWO, only=("fold-0",)
        )
    state = Path("/proc") / (tmp_path / "run" / "child").read_text() / "stat"
    end = time.monotonic() + 10
    while state.exists() and state.read_text().split(")")[1].split()[0] != "Z":
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_machine_has_an_actor_a_core_and_no_more_than_sites(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hemoscope.federated.simulation.simulation.available_processors", lambda: 8)
    assert Machine().share(4) == (4, 2)
    assert Machine().share(20) == (8, 1)
    assert Machine(actors=2).share(4) == (2, 4)
    with pytest.raises(ConfigError, match="actors must be at least 1, got 0"):
        Machine(actors=0)


def test_fewer_sites_than_a_round_needs_are_refused_before_patients_are_partitioned(
    hospital_cache: Cache, small_federation: Callable[..., Any], tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="2 sites are expected, but a round needs 3"):
        simulate(small_federation(min_sites=3), hospital_cache, tmp_path / "run", partitioning=Partitioning(sites=2))
    assert not (tmp_path / "run").exists()


def test_a_poison_that_nobody_could_see_is_refused(
    hospital_cache: Cache, small_federation: Callable[..., Any], tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="there is no site-3 to poison"):
        simulate(small_federation(experiment=FOLDS), hospital_cache, tmp_path, partitioning=TWO, poison={3: "flip"})
    hidden = small_federation(experiment=FOLDS, secure_aggregation={"enabled": True})
    with pytest.raises(ConfigError, match="a scaled update cannot be shown under secure aggregation"):
        simulate(hidden, hospital_cache, tmp_path, partitioning=TWO, poison={1: "scale"})


@pytest.mark.slow
@pytest.mark.timeout(900)  # a minute where nothing else runs
def test_a_simulation_on_ray_is_interrupted_and_goes_on_to_the_end(
    hospital_cache: Cache, tmp_path: Path, small_experiment: Callable[..., Any]
) -> None:
    record = small_experiment(**FOLDS).to_json()
    experiment = {
        "name": "small",
        "run": record["run"],
        "network": {"backbone": "test_efficientnet", "width": 8, "pooled": 4},
    }
    (tmp_path / "experiment.toml").write_text(
        as_toml({**experiment, "preprocessing": {"size": 32}, "optimizer": {"ema": 0.0}})
    )
    (tmp_path / "federation.toml").write_text('name = "tiny"\nexperiment = "experiment.toml"\nrounds = 5\n')
    command = [
        str(Path(sys.executable).parent / "hemoscope"),
        "federated",
        "simulate",
        str(tmp_path / "federation.toml"),
    ]
    command += ["--data", str(hospital_cache.folder), "--output", str(tmp_path / "run"), "--sites", "2"]
    first = subprocess.Popen([*command, "--only", "fold-0"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert first.stdout is not None
    line = first.stdout.readline()
    assert line.startswith("fold-0: round 1 of 5, 2 of 2 sites, loss "), (line, first.communicate(timeout=60))
    first.send_signal(signal.SIGINT)
    first.communicate(timeout=120)
    assert first.returncode == 130
    again = subprocess.run(
        [*command, "--only", "fold-0", "--resume"], capture_output=True, text=True, timeout=600, check=False
    )
    assert again.returncode == 0, again.stderr
    assert "fold-0: round 1 of 5" not in again.stdout
    assert "fold-0: round 5 of 5" in again.stdout
    numbers = [
        json.loads(line)["asked"] for line in (tmp_path / "run" / "fold-0" / "rounds.jsonl").read_text().splitlines()
    ]
    assert numbers == [[1, 2]] * 5
    assert (tmp_path / "run" / "fold-0" / "scores.csv").is_file()


def as_toml(tables: dict[str, Any]) -> str:
    lines = [f"{name} = {json.dumps(value)}" for name, value in tables.items() if not isinstance(value, dict)]
    for name, table in tables.items():
        if isinstance(table, dict):
            lines += [f"[{name}]", *(f"{key} = {json.dumps(value)}" for key, value in table.items())]
    return "\n".join(lines) + "\n"
