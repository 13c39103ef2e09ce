"""The whole way with a real archive: images go to Orthanc, Orthanc sends them on, results come back into the study."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread

from hemoscope.testing.dicom_writer import write_series
from hemoscope.testing.phantom import make_phantom

pytestmark = [
    pytest.mark.reference_tool("Orthanc", "dcmsend"),
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root, for a network of its own"),
    pytest.mark.timeout(600),
]
WAIT_S = 180.0
LUA = """
function OnStableSeries(seriesId, tags, metadata)
   if tags['Modality'] == 'CT' and metadata['RemoteAET'] ~= 'HEMOSCOPE' then
      RestApiPost('/modalities/hemoscope/store', '{"Resources": ["' .. seriesId .. '"], "Asynchronous": true}')
   end
end
"""
NODE = """
[node]
ae_title = "HEMOSCOPE"
port = 11112
quiet_seconds = 2

[[peer]]
ae_title = "PACS"
addresses = ["127.0.0.1"]

[[destination]]
name = "archive"
ae_title = "PACS"
host = "127.0.0.1"
port = 4242
commitment = true
"""
SR, SC, KO = "1.2.840.10008.5.1.4.1.1.88.34", "1.2.840.10008.5.1.4.1.1.7.4", "1.2.840.10008.5.1.4.1.1.88.59"


class Hospital:
    """A network of its own, since Orthanc listens on every address, and the programs in it."""

    def __init__(self, folder: Path, bundle: Path, running: ExitStack) -> None:
        self.folder, self._bundle, self._running = folder, bundle, running
        self._name = f"hemoscope-{os.getpid()}"
        self._ip("netns", "add", self._name)
        running.callback(self._ip, "netns", "delete", self._name)
        self._ip("netns", "exec", self._name, "ip", "link", "set", "lo", "up")

    @staticmethod
    def _ip(*words: str) -> None:
        subprocess.run(["ip", *words], check=True, capture_output=True, timeout=60)

    def run(self, *words: object) -> str:
        """Run a program to its end, and return what it prints."""
        command = ["ip", "netns", "exec", self._name, *map(str, words)]
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout

    def start(self, name: str, words: Sequence[object]) -> None:
        """Run a program until the test ends; its output goes to a file of this name."""
        with (self.folder / f"{name}.log").open("wb") as log:
            command = ["ip", "netns", "exec", self._name, *map(str, words)]
            process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        self._running.callback(process.wait, 60)
        self._running.callback(process.terminate)

    def hemoscope(self, *words: object) -> None:
        """Start one of Hemoscope's servers over the store of this hospital."""
        program = Path(sys.executable).with_name("hemoscope")
        storage = ("--storage", self.folder / "store")
        self.start(f"hemoscope-{words[0]}", (program, *words, *storage))

    def orthanc(self) -> None:
        """Start an archive that sends every CT series on."""
        (self.folder / "route.lua").write_text(LUA)
        settings = {
            "StorageDirectory": str(self.folder / "pacs"),
            "IndexDirectory": str(self.folder / "pacs"),
            "Plugins": ["/usr/share/orthanc/plugins"],
            "LuaScripts": [str(self.folder / "route.lua")],
            "HttpPort": 8042,
            "RemoteAccessAllowed": False,
            "DicomAet": "PACS",
            "DicomPort": 4242,
            "DicomCheckCalledAet": True,
            "DicomAlwaysAllowStore": False,
            "StableAge": 2,
            "DicomModalities": {
                "hemoscope": ["HEMOSCOPE", "127.0.0.1", 11112],
                "modality": ["STORESCU", "127.0.0.1", 11113],
            },
            "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
        }
        (self.folder / "orthanc.json").write_text(json.dumps(settings))
        self.start("orthanc", ("Orthanc", self.folder / "orthanc.json"))

    def get(self, path: str) -> Any:
        """Ask the archive by HTTP."""
        code = "import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1], timeout=30).read().decode())"
        return json.loads(self.run(sys.executable, "-I", "-c", code, f"http://127.0.0.1:8042{path}"))

    def file(self, instance: str) -> bytes:
        """Fetch an object of the archive as a file."""
        target = self.folder / "fetched.dcm"
        code = "import sys, urllib.request; urllib.request.urlretrieve(sys.argv[1], sys.argv[2])"
        self.run(sys.executable, "-I", "-c", code, f"http://127.0.0.1:8042/instances/{instance}/file", target)
        return target.read_bytes()

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text(errors="replace")


def until(what: str, check: Callable[[], Any], hospital: Hospital) -> Any:
    """Wait for a condition; the failure shows the logs."""
    end = time.monotonic() + WAIT_S
    while time.monotonic() < end:
        try:
            if found := check():
                return found
        except (subprocess.CalledProcessError, OSError, ValueError):
            pass  # not there yet
        time.sleep(0.5)
    logs = {path.name: path.read_text(errors="replace")[-2000:] for path in hospital.folder.glob("*.log")}
    pytest.fail(f"{what} did not happen in {WAIT_S:.0f} s: {logs}")


@pytest.fixture
def hospital(tmp_path: Path, tiny_bundle: Path) -> Iterator[Hospital]:
    if shutil.which("ip") is None:
        pytest.skip("ip is not installed: apt-get install iproute2")
    with ExitStack() as running:
        here = Hospital(tmp_path, tiny_bundle, running)
        (tmp_path / "node.toml").write_text(NODE)
        here.orthanc()
        here.hemoscope(
            "serve", "--port", "8000", "--model", tiny_bundle, "--threads", "1", "--node", tmp_path / "node.toml"
        )
        here.hemoscope("listen", tmp_path / "node.toml")
        until("Orthanc's start", lambda: here.get("/system"), here)
        until("the node's start", lambda: "listens as" in here.log("hemoscope-listen"), here)
        until("the reading room's start", lambda: "is at" in here.log("hemoscope-serve"), here)
        yield here


def results(hospital: Hospital, study: str) -> dict[str, str]:
    """The SOP classes in a study of the archive, by QIDO, without the images: class and instance UID."""
    found = hospital.get(f"/dicom-web/studies/{study}/instances?includefield=00080016")
    pairs = {one["00080016"]["Value"][0]: one["00080018"]["Value"][0] for one in found}
    return {sop_class: uid for sop_class, uid in pairs.items() if sop_class in (SR, SC, KO)}


def test_results_come_back_into_the_study_and_nothing_identifying_is_logged(hospital: Hospital, tmp_path: Path) -> None:
    paths = write_series(make_phantom(seed=2, shape=(6, 64, 64)), tmp_path / "images")
    source = dcmread(paths[0])
    hospital.run("dcmsend", "-aet", "STORESCU", "-aec", "PACS", "+sd", "127.0.0.1", 4242, tmp_path / "images")
    study = source.StudyInstanceUID
    found = until("results in the archive", lambda: {SR, SC} <= set(results(hospital, study)), hospital)
    assert found
    until(
        "delivery of everything",
        lambda: not list((tmp_path / "store" / ".outbox").glob("*.dcm")),
        hospital,
    )
    before = results(hospital, study)
    # The same study once more: nothing is doubled, and our own results are not taken for images.
    hospital.run("dcmsend", "-aet", "STORESCU", "-aec", "PACS", "+sd", "127.0.0.1", 4242, tmp_path / "images")
    time.sleep(8)
    assert results(hospital, study) == before
    instances = hospital.get("/instances?expand")
    report = next(one["ID"] for one in instances if one["MainDicomTags"]["SOPInstanceUID"] == before[SR])
    (tmp_path / "report.dcm").write_bytes(hospital.file(report))
    assert dcmread(tmp_path / "report.dcm").PatientID == source.PatientID
    for name in ("hemoscope-listen", "hemoscope-serve"):
        log = hospital.log(name)
        for marker in (str(source.PatientName), str(source.PatientID), study):
            assert marker not in log
