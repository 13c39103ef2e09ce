"""Damaged files end in a result or a typed refusal: never in a crash, a hang, a stray exception or a memory jump."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from .fuzz_seeds import write_fuzz_seeds

FUZZER = Path(__file__).with_name("fuzzing.py")
MUTATIONS = int(os.environ.get("HEMOSCOPE_FUZZ_FILES", "20000"))
BATCH = 2000
_spec = importlib.util.spec_from_file_location("fuzzing", FUZZER)
fuzzing = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(fuzzing)


@pytest.fixture(scope="module")
def seeds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One small file of every syntax, and three Enhanced ones, all in one folder."""
    folder = tmp_path_factory.mktemp("seeds")
    write_fuzz_seeds(folder)
    return folder


def read_mutations(seeds: Path, first: int, count: int) -> dict[str, int]:
    """Read mutations in a child; fails with the number of the file and how the child ended."""
    result = subprocess.run(
        [sys.executable, "-W", "error", str(FUZZER), str(seeds), str(first), str(count)],
        capture_output=True,
        text=True,
        check=False,
    )
    lines = result.stdout.splitlines()
    last = lines[-1] if lines else "none"
    assert result.returncode == 0, f"file {last} ended the reader: {result.returncode}\n{result.stderr[-2000:]}"
    report = json.loads(last)
    assert report["grown"] < fuzzing.RESIDENT_GROWTH, f"memory grew by {report['grown'] >> 20} MiB"
    assert sum(report["outcomes"].values()) == count
    assert "other" not in report["deidentified"], "a de-identified file is read with other Hounsfield units"
    # A number with control characters is read, but not kept: it may hide a text.
    assert report["deidentified"]["same"] > 0.9 * report["outcomes"]["read"]
    return report["outcomes"]


def test_a_mutation_is_the_same_each_time(seeds: Path) -> None:
    data = (seeds / "explicit.dcm").read_bytes()
    assert all(fuzzing.mutate(data, number) == fuzzing.mutate(data, number) for number in range(50))


def test_a_few_hundred_damaged_files_are_read_or_refused(seeds: Path) -> None:
    outcomes = read_mutations(seeds, 0, 400)
    assert outcomes["read"] > 20
    assert len(outcomes) > 3


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("first", range(0, MUTATIONS, BATCH))
def test_thousands_of_damaged_files_are_read_or_refused(seeds: Path, first: int) -> None:
    read_mutations(seeds, first, min(BATCH, MUTATIONS - first))
