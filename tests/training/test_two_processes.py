"""Two processes with half a batch each train exactly like one process with the whole batch."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

SCRIPT = Path(__file__).parent / "two_processes.py"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("two_processes", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what both processes found."""
    folder = tmp_path_factory.mktemp("two")
    command = [sys.executable, str(SCRIPT)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    running = [
        subprocess.Popen([*command, str(rank), str(folder)], env=environment, stderr=subprocess.PIPE, text=True)
        for rank in range(2)
    ]
    for process in running:
        _, errors = process.communicate(timeout=240)
        assert process.returncode == 0, errors
    return folder


def largest_difference(some: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    assert some.keys() == other.keys()
    return max(float((some[name] - other[name]).abs().max()) for name in some)


@pytest.mark.parametrize("name", ["everything", "focal", "published"])
def test_two_processes_find_the_gradients_and_the_loss_of_one(script: ModuleType, together: Path, name: str) -> None:
    config = script.CONFIGS[name]
    expected, loss = script.gradients(script.network(), slice(None), config)
    assert max(float(gradient.abs().max()) for gradient in expected.values()) > 1e-2  # else anything would agree
    for rank in range(2):
        found = load_file(together / f"{name}-{rank}.safetensors")
        assert float(found.pop("loss")) == pytest.approx(float(loss), abs=1e-5)
        assert largest_difference(found, expected) < 1e-5


@pytest.mark.parametrize("name", ["everything", "focal", "published"])
def test_means_of_each_process_by_itself_would_be_others(script: ModuleType, name: str) -> None:
    """The unknown labels are spread so unevenly that forgetting the other process would show."""
    network, config = script.network(), script.CONFIGS[name]
    whole, _ = script.gradients(network, slice(None), config)
    halves = [script.gradients(network, rows, config)[0] for rows in (slice(0, 4), slice(4, 8))]
    naive = {key: torch.stack([half[key] for half in halves]).mean(0) for key in whole}
    assert largest_difference(naive, whole) > 1e-3
