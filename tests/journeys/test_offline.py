"""No telemetry: a prediction in a network namespace with only loopback, and no trace of telemetry packages."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
ISOLATED = ["unshare", "--map-root-user", "--net"]
# What a namespace without networks must not reach: a look-up and a connection, to an address kept for documentation.
REACH_OUT = "import socket; socket.create_connection(('192.0.2.1', 443), timeout=5)"


@pytest.fixture(scope="module")
def isolated() -> list[str]:
    """The words before a command that take its network away; loopback is brought up where ``ip`` is installed."""
    if not shutil.which("unshare"):
        pytest.skip("unshare is not installed: apt-get install util-linux")
    if subprocess.run([*ISOLATED, "true"], capture_output=True, check=False).returncode:
        pytest.skip("unshare may not make a network namespace here: allow unprivileged user namespaces")
    loopback = "ip link set lo up; " if shutil.which("ip") else ""
    return [*ISOLATED, "sh", "-c", loopback + 'exec "$@"', "isolated"]


def run(command: list[str], *, home: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    # Not CI: telemetry that switches itself off in CI must be off everywhere.
    kept = {name: value for name, value in os.environ.items() if name not in {"CI", "TF_BUILD", "JENKINS_URL"}}
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**kept, "HOME": str(home), "OMP_NUM_THREADS": "1", **environment},
    )


def test_the_namespace_has_no_way_out(isolated: list[str], tmp_path: Path) -> None:
    done = run([*isolated, sys.executable, "-c", REACH_OUT], home=tmp_path)
    assert "Network is unreachable" in done.stderr


@pytest.fixture
def predicted(isolated: list[str], tiny_bundle: Path, tmp_path: Path) -> subprocess.CompletedProcess[str]:
    """``hemoscope predict`` on the sample, without a network, in a home folder of its own."""
    hemoscope = [str(Path(sys.executable).with_name("hemoscope"))]
    sample = str(REPOSITORY / "examples" / "sample")
    options = ["--model", str(tiny_bundle), "--output", str(tmp_path / "output"), "--format", "json"]
    (tmp_path / "home").mkdir()
    return run([*isolated, *hemoscope, "predict", sample, *options], home=tmp_path / "home")


def test_a_prediction_needs_no_network_and_leaves_no_trace_of_telemetry(
    predicted: subprocess.CompletedProcess[str], tmp_path: Path
) -> None:
    assert predicted.returncode == 0, predicted.stderr
    study = json.loads(predicted.stdout)["studies"][0]
    assert len(study["slices"]) == len(list((REPOSITORY / "examples" / "sample").glob("*.dcm")))
    # OpenVINO's telemetry, were it loaded, would keep an identity of this user in ~/intel.
    assert not list((tmp_path / "home").iterdir())
