"""Whose run a folder holds: an old record is today's with today's defaults, anything foreign is refused."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from hemoscope.data.cache import Cache
from hemoscope.errors import TrainingError
from hemoscope.training.experiment import Experiment
from hemoscope.training.parts import run_parts
from hemoscope.training.run_folder import open_run, read_split

Build = Callable[..., Experiment]
OLD_RUN_KEYS = ("epochs", "batch_size", "seed", "precision", "folds", "init", "held_out")


def test_a_run_begun_before_the_newer_settings_is_the_same_run(
    tmp_path: Path, phantom_cache: Cache, tiny_experiment: Build
) -> None:
    experiment = tiny_experiment()
    part = run_parts(experiment, phantom_cache)[0]
    open_run(experiment, phantom_cache, tmp_path / "run", part, resume=False)
    path = tmp_path / "run" / "experiment.json"
    record = json.loads(path.read_text())
    del record["sequence"]
    record["run"] = {key: record["run"][key] for key in OLD_RUN_KEYS}
    path.write_text(json.dumps(record))
    open_run(experiment, phantom_cache, tmp_path / "run", part, resume=True)
    assert "split" in json.loads(path.read_text())["run"]
    assert read_split(tmp_path / "run") is None


@pytest.mark.parametrize("record", ["{}", "no json", '{"name": "tiny", "trainer": {}}', "[]"])
def test_a_record_that_is_none_is_another_run(
    tmp_path: Path, phantom_cache: Cache, tiny_experiment: Build, record: str
) -> None:
    experiment = tiny_experiment()
    part = run_parts(experiment, phantom_cache)[0]
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "experiment.json").write_text(record)
    with pytest.raises(TrainingError, match="run holds a run of another experiment"):
        open_run(experiment, phantom_cache, tmp_path / "run", part, resume=True)


def test_workers_and_checkpoints_may_change_when_a_run_goes_on(
    tmp_path: Path, phantom_cache: Cache, tiny_experiment: Build
) -> None:
    part = run_parts(tiny_experiment(), phantom_cache)[0]
    open_run(tiny_experiment(), phantom_cache, tmp_path / "run", part, resume=False)
    changed = tiny_experiment(run={"workers": 2, "checkpoint_steps": 5})
    open_run(changed, phantom_cache, tmp_path / "run", part, resume=True)
