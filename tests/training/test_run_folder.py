"""A run folder: an old record gets today's defaults, and the record of another run is refused."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from hemoscope.data.cache import Cache
from hemoscope.errors import TrainingError
from hemoscope.training.data_splits import make_data_splits
from hemoscope.training.experiment import Experiment
from hemoscope.training.run_folder import open_run, read_split, source_revision

Build = Callable[..., Experiment]
OLD_RUN_KEYS = ("epochs", "batch_size", "seed", "precision", "folds", "init", "held_out")


def test_a_run_begun_before_the_newer_settings_is_the_same_run(
    tmp_path: Path, phantom_cache: Cache, tiny_experiment: Build
) -> None:
    experiment = tiny_experiment()
    split = make_data_splits(experiment, phantom_cache)[0]
    open_run(experiment, phantom_cache, tmp_path / "run", split, resume=False)
    path = tmp_path / "run" / "experiment.json"
    record = json.loads(path.read_text())
    del record["sequence"]
    record["run"] = {key: record["run"][key] for key in OLD_RUN_KEYS}
    path.write_text(json.dumps(record))
    open_run(experiment, phantom_cache, tmp_path / "run", split, resume=True)
    assert "split" in json.loads(path.read_text())["run"]
    assert read_split(tmp_path / "run") is None


@pytest.mark.parametrize("record", ["{}", "no json", '{"name": "tiny", "trainer": {}}', "[]"])
def test_a_record_that_is_none_is_another_run(
    tmp_path: Path, phantom_cache: Cache, tiny_experiment: Build, record: str
) -> None:
    experiment = tiny_experiment()
    split = make_data_splits(experiment, phantom_cache)[0]
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "experiment.json").write_text(record)
    with pytest.raises(TrainingError, match="run holds a run of another experiment"):
        open_run(experiment, phantom_cache, tmp_path / "run", split, resume=True)


def test_workers_and_checkpoints_may_change_when_a_run_resumes(
    tmp_path: Path, phantom_cache: Cache, tiny_experiment: Build
) -> None:
    split = make_data_splits(tiny_experiment(), phantom_cache)[0]
    open_run(tiny_experiment(), phantom_cache, tmp_path / "run", split, resume=False)
    changed = tiny_experiment(run={"workers": 2, "checkpoint_steps": 5})
    open_run(changed, phantom_cache, tmp_path / "run", split, resume=True)


def test_the_revision_is_that_of_a_checkout_and_none_of_a_copy(tmp_path: Path) -> None:
    def git(*words: str) -> None:
        identity = ("-c", "user.name=a", "-c", "user.email=a@example.org")
        subprocess.run(["git", "-C", str(tmp_path / "clone"), *identity, *words], check=True, capture_output=True)

    package = tmp_path / "clone" / "package"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    assert source_revision(package) == {}
    git("init", "-q")
    git("commit", "-q", "--allow-empty", "-m", "before")
    assert source_revision(package) == {}  # installed within somebody else's checkout
    git("add", ".")
    git("commit", "-q", "-m", "with it")
    clean = source_revision(package)
    assert (len(clean["revision"]), clean["dirty"]) == (40, False)
    (package / "__init__.py").write_text("changed = True")
    assert source_revision(package) == {**clean, "dirty": True}
