"""The paper's network is exported, timed in new processes beside PyTorch eager, and measured without the parent."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from hemoscope.errors import ConfigError, TrainingError
from hemoscope.evaluation.reproduction_page import timing_tables
from hemoscope.inference.bundle import load_bundle
from hemoscope.testing.dicom_writer import write_series
from hemoscope.testing.phantom import make_phantom
from hemoscope.training import deployment_timing, timed_reading
from hemoscope.training.deployment_timing import measure_deployment, paper_network
from hemoscope.training.measured_process import main as measured_main


def measured(capsys: pytest.CaptureFixture[str], code: str) -> dict[str, object]:
    assert measured_main([sys.executable, "-I", "-c", code]) == 0
    return dict(json.loads(capsys.readouterr().out))


def test_a_process_is_measured_by_its_time_its_memory_and_its_output(capsys: pytest.CaptureFixture[str]) -> None:
    found = measured(capsys, "import time; b = bytes(200_000_000); time.sleep(.3); print(len(b))")
    assert found["exit_code"] == 0
    assert found["output"] == "200000000\n"
    assert isinstance(found["wall_s"], float)
    assert found["wall_s"] > 0.3


def test_the_memory_of_the_measuring_process_does_not_count() -> None:
    """A process that holds 300 MB starts the helper, as the timing does with PyTorch; a small command stays small."""
    code = (
        "import subprocess, sys, json\n"
        "big = bytearray(300_000_000)\n"
        "for i in range(0, len(big), 4096): big[i] = 1\n"
        "helper = [sys.executable, '-m', 'hemoscope.training.measured_process', sys.executable, '-I', '-c', 'pass']\n"
        "print(json.loads(subprocess.run(helper, capture_output=True, text=True).stdout)['peak_bytes'])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert int(done.stdout) < 100_000_000


def test_a_failed_process_reports_its_code_and_its_message(capsys: pytest.CaptureFixture[str]) -> None:
    found = measured(capsys, "import sys; sys.exit('no room')")
    assert found["exit_code"] == 1
    assert found["errors"] == "no room\n"


def test_the_first_slice_is_not_timed_unless_it_is_the_only_one() -> None:
    calls: list[int] = []

    def run(inputs: object) -> None:
        calls.append(len(list(inputs)))  # type: ignore[call-overload]

    image = np.zeros((3, 4, 4), dtype=np.float32)
    assert set(timed_reading.timed(run, [image] * 5)) == {"forward_wall_ms", "forward_cpu_ms"}
    assert calls == [1, 4]
    timed_reading.timed(run, [image])
    assert calls == [1, 4, 1]


def test_a_folder_without_head_ct_is_refused_before_anything_is_exported(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no series of head CT to time"):
        measure_deployment(tmp_path)
    write_series(make_phantom(seed=1, shape=(1, 64, 64)), tmp_path, seed=1)
    with pytest.raises(ConfigError, match="at least two single-frame slices"):
        measure_deployment(tmp_path)


def test_a_process_that_fails_ends_the_timing_with_its_last_line() -> None:
    task = deployment_timing._Task(command=["-c", "import sys; sys.exit('it broke')"], entry={"runs": []})
    with pytest.raises(TrainingError, match="ended with 1: it broke"):
        deployment_timing._run(task)


def test_the_middle_slices_are_copied_in_order(tmp_path: Path) -> None:
    files = write_series(make_phantom(seed=1, shape=(40, 64, 64)), tmp_path / "in", seed=1)
    assert deployment_timing._copy_slices(tmp_path / "in", tmp_path) == 36
    copied = sorted((tmp_path / "series").iterdir())
    originals = {file.read_bytes() for file in files}
    assert len(copied) == 36
    assert {file.read_bytes() for file in copied} < originals
    assert (tmp_path / "one" / "000.dcm").read_bytes() == copied[18].read_bytes()


@pytest.mark.slow
def test_the_papers_network_is_timed_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deployment_timing, "available_threads", lambda: 1)
    write_series(make_phantom(seed=1, shape=(3, 128, 128)), tmp_path, seed=1)
    done: list[tuple[int, int]] = []
    timing = measure_deployment(tmp_path, runs=1, progress=lambda *step: done.append(step))
    assert done[-1] == (5, 5)
    assert timing["mirror"] is False
    assert timing["network"] == {"experiment": "paper", "side": 7, "features": 2048, "parameters": 49_199_942}
    assert timing["slices"] == 3
    assert [(entry["what"], entry["slices"]) for entry in timing["processes"]] == [
        ("hemoscope predict", 1),
        ("PyTorch eager", 1),
        ("hemoscope predict", 3),
        ("PyTorch eager", 3),
    ]
    assert 0.3 < timing["headline"]["peak_memory_gb"] < 2.5
    assert [len(rows) for _, _, rows in timing_tables(timing)] == [2, 4]
    json.dumps(timing, allow_nan=False)


@pytest.mark.slow
def test_both_engines_run_the_same_network(tmp_path: Path) -> None:
    """So their times may stand side by side."""
    import torch

    from hemoscope.inference.engine import Engine
    from hemoscope.training.models.checkpoint import load_weights

    deployment_timing.write_paper_models(tmp_path)
    _, network = paper_network()
    load_weights(network, tmp_path / timed_reading.WEIGHTS)
    image = np.random.default_rng(0).random((3, 224, 224), dtype=np.float32)
    with torch.inference_mode():
        eager = network.eval()(torch.from_numpy(image)[None]).logits.numpy()
    exported = Engine(load_bundle(tmp_path / "bundle"), threads=1).run([image]).logits
    assert exported == pytest.approx(eager, abs=2e-3)
