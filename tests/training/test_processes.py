"""Training in two processes of this machine: one run, one set of files, one output, also after a kill."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from hemoscope.data.cache import Cache

TINY = """
name = "tiny"
[run]
epochs = 2
batch_size = 2
init = "none"
split = "patient"
validation = 0.34
test = 0.17
early_stop = 2
checkpoint_steps = 1
devices = 2
strategy = "ddp"
"""
SETTINGS = [
    "network.backbone=test_efficientnet",
    "network.width=8",
    "network.pooled=4",
    "preprocessing.size=32",
    "sampling.kind=all",
    "optimizer.ema=0.9",
]
SCRIPT = """
import os, signal, sys
from hemoscope.cli import main
from hemoscope.training.callbacks import KeepCheckpoint
if os.environ.get("KILL_AT"):
    save = KeepCheckpoint.on_train_batch_end
    def saved(self, trainer, *rest):
        save(self, trainer, *rest)
        if trainer.global_step == int(os.environ["KILL_AT"]):
            os.kill(os.getpid(), signal.SIGKILL)
    KeepCheckpoint.on_train_batch_end = saved
sys.exit(main(sys.argv[1:]))
"""


def train(folder: Path, cache: Cache, run: str, *words: str, kill_at: str = "") -> subprocess.CompletedProcess[str]:
    """The command, from a file that Lightning can start once more for the second process."""
    (folder / "tiny.toml").write_text(TINY)
    (folder / "command.py").write_text(SCRIPT)
    command = ["train", str(folder / "tiny.toml"), "--data", str(cache.folder), "--output", str(folder / run), *words]
    settings = [word for setting in SETTINGS for word in ("--set", setting)]
    return subprocess.run(
        [sys.executable, str(folder / "command.py"), *command, *settings],
        env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "KILL_AT": kill_at},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_processes_leave_one_run_print_once_and_resume_after_a_kill(tmp_path: Path, phantom_cache: Cache) -> None:
    done = train(tmp_path, phantom_cache, "whole")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert [line.partition(":")[0] for line in done.stdout.splitlines()] == ["split", "finished"]
    split = tmp_path / "whole" / "split"
    record = json.loads((split / "part.json").read_text())
    assert (record["processes"], record["epochs"], record["learned"]) == (2, 2, 9)
    assert record["steps"] == 2 * (9 // 2 // 2)
    rows = [json.loads(line) for line in (split / "metrics.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows] == [0, 1]
    assert len((split / "scores-test.csv").read_text().splitlines()) == 1 + record["scored"]

    killed = train(tmp_path, phantom_cache, "run", kill_at="3")
    assert killed.returncode == -9
    resumed = train(tmp_path, phantom_cache, "run", "--resume")
    assert resumed.returncode == 0, resumed.stderr
    ours, theirs = (load_file(tmp_path / name / "split" / "weights.safetensors") for name in ("run", "whole"))
    assert all(torch.allclose(ours[name], theirs[name], 5e-7, 1e-7) for name in theirs)
