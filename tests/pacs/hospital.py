"""A hospital on one machine: an archive (Orthanc) and Hemoscope's servers in a network of their own, and what it holds.

Orthanc listens on every address, so everything runs in a network namespace, which needs root.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread

from hemoscope.testing.dicom_writer import write_series
from hemoscope.testing.phantom import make_phantom

WAIT_S = 180.0
LUA = """
function OnStableSeries(seriesId, tags, metadata)
   if tags['Modality'] == 'CT' and metadata['RemoteAET'] ~= 'HEMOSCOPE' then
      RestApiPost('/modalities/hemoscope/store', '{"Resources": ["' .. seriesId .. '"], "Asynchronous": true}')
   end
end
"""
SR, SC, KO = "1.2.840.10008.5.1.4.1.1.88.34", "1.2.840.10008.5.1.4.1.1.7.4", "1.2.840.10008.5.1.4.1.1.88.59"
# What no log may hold; every study of ``modality`` has it.
IDENTITY = {
    "PatientName": "Zqxname^Wvfirst",
    "PatientID": "ZQX-4711-ID",
    "PatientBirthDate": "19321107",
    "AccessionNumber": "ZQXACC0815",
}


class Hospital:
    """Programs in a network of their own; each can be killed and started again."""

    def __init__(self, folder: Path, running: ExitStack) -> None:
        self.folder = folder
        self._name = f"hemoscope-{os.getpid()}-{id(self) % 10_000}"
        self._programs: dict[str, tuple[list[str], subprocess.Popen[bytes]]] = {}
        self._ip("netns", "add", self._name)
        running.callback(self._ip, "netns", "delete", self._name)
        running.callback(self._end)
        self._ip("netns", "exec", self._name, "ip", "link", "set", "lo", "up")

    @staticmethod
    def _ip(*words: str) -> None:
        subprocess.run(["ip", *words], check=True, capture_output=True, timeout=60)

    def run(self, *words: object, check: bool = True) -> str:
        """Run a program to its end, and return what it prints."""
        command = ["ip", "netns", "exec", self._name, *map(str, words)]
        done = subprocess.run(command, check=check, capture_output=True, text=True, timeout=300)
        return done.stdout if check else done.stdout + done.stderr

    def start(self, name: str, words: Sequence[object]) -> subprocess.Popen[bytes]:
        """Run a program until the test ends; its output is appended to a file of this name."""
        command = ["ip", "netns", "exec", self._name, *map(str, words)]
        with (self.folder / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        self._programs[name] = command[4:], process
        return process

    def stop(self, name: str, how: int = signal.SIGTERM) -> None:
        """End a program, by SIGKILL if asked, and wait for its end."""
        process = self._programs[name][1]
        process.send_signal(how)
        process.wait(60)

    def _end(self) -> None:
        """End every program, all at once, since some take seconds."""
        for _, process in self._programs.values():
            process.terminate()
        for _, process in self._programs.values():
            process.wait(60)

    def pid(self, name: str) -> int:
        """The process of a program."""
        return self._programs[name][1].pid

    def peak_kib(self, name: str) -> int:
        """The highest resident set of a program since the last call."""
        process = Path(f"/proc/{self.pid(name)}")
        peak = int((process / "status").read_text().partition("VmHWM:")[2].split()[0])
        (process / "clear_refs").write_text("5")  # the peak begins anew, proc(5)
        return peak

    def start_again(self, name: str) -> None:
        """Start a program that was ended, with the same command."""
        self.start(name, self._programs[name][0])

    def hemoscope(self, *words: object) -> None:
        """Start one of Hemoscope's servers over the store of this hospital."""
        program = Path(sys.executable).with_name("hemoscope")
        self.start(f"hemoscope-{words[0]}", (program, *words, "--storage", self.folder / "store"))

    def listen(self, node: str) -> None:
        """Start the node with these settings in TOML, and wait until it listens."""
        (self.folder / "node.toml").write_text(node)
        self.hemoscope("listen", self.folder / "node.toml")
        self.until("the node's start", lambda: "listens as" in self.log("hemoscope-listen"))

    def listen_again(self) -> None:
        """Start the node that was ended, and wait until it listens."""
        before = self.log("hemoscope-listen").count("listens as")
        self.start_again("hemoscope-listen")
        self.until("the node's next start", lambda: self.log("hemoscope-listen").count("listens as") > before)

    def serve(self, bundle: Path) -> None:
        """Start the reading room with its worker."""
        options = ("--port", "8000", "--model", bundle, "--threads", "1", "--node", self.folder / "node.toml")
        self.hemoscope("serve", *options)
        self.until("the reading room's start", lambda: "is at" in self.log("hemoscope-serve"))

    def orthanc(self, node: object = ("HEMOSCOPE", "127.0.0.1", 11112), **more: Any) -> None:
        """Start an archive that sends every CT series on to ``node``; ``more`` are settings of Orthanc."""
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
            "DicomModalities": {"hemoscope": node, "modality": ["STORESCU", "127.0.0.1", 11113]},
            "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
            **more,
        }
        (self.folder / "orthanc.json").write_text(json.dumps(settings))
        self.start("orthanc", ("Orthanc", self.folder / "orthanc.json"))
        self.until("Orthanc's start", lambda: self.get("/system"))

    def get(self, path: str, *, port: int = 8042, body: str | None = None) -> Any:
        """Ask the archive, or the reading room at port 8000, by HTTP; with a body, POST it."""
        code = (
            "import sys, urllib.request as u; body = sys.argv[2].encode() if len(sys.argv) > 2 else None; "
            "print(u.urlopen(sys.argv[1], body, timeout=60).read().decode())"
        )
        words = (f"http://127.0.0.1:{port}{path}", *(() if body is None else (body,)))
        return json.loads(self.run(sys.executable, "-I", "-c", code, *words))

    def file(self, instance: str) -> bytes:
        """Fetch an object of the archive as a file."""
        target = self.folder / "fetched.dcm"
        code = "import sys, urllib.request; urllib.request.urlretrieve(sys.argv[1], sys.argv[2])"
        self.run(sys.executable, "-I", "-c", code, f"http://127.0.0.1:8042/instances/{instance}/file", target)
        return target.read_bytes()

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text(errors="replace")

    def until(self, what: str, check: Callable[[], Any], *, every_s: float = 0.5) -> Any:
        """Wait for a condition; the failure shows the logs."""
        end = time.monotonic() + WAIT_S
        while time.monotonic() < end:
            try:
                if found := check():
                    return found
            except (subprocess.CalledProcessError, OSError, ValueError):
                pass  # not there yet
            time.sleep(every_s)
        logs = {path.name: path.read_text(errors="replace")[-2000:] for path in self.folder.glob("*.log")}
        pytest.fail(f"{what} did not happen in {WAIT_S:.0f} s: {logs}")

    def classes(self, study: str) -> list[str]:
        """The SOP classes of the objects in a study of the archive, by QIDO, one for each object."""
        found = self.get(f"/dicom-web/studies/{study}/instances?includefield=00080016")
        return sorted(one["00080016"]["Value"][0] for one in found)

    def results(self, study: str) -> list[str]:
        """The SOP classes of results in a study of the archive."""
        return [one for one in self.classes(study) if one in (SR, SC, KO)]

    def received(self) -> list[Path]:
        """The images in the spool."""
        return list((self.folder / "store" / ".received").glob("*/*.dcm"))

    def waiting(self) -> list[Path]:
        """The results that wait to be sent."""
        return list((self.folder / "store" / ".outbox").glob("*.dcm"))

    def worklist(self) -> list[dict[str, Any]]:
        """The studies of the reading room."""
        return list(self.get("/api/v1/studies", port=8000)["studies"])

    def store_images(self, folder: Path, *, to: str = "HEMOSCOPE", title: str = "STORESCU") -> tuple[object, ...]:
        """The command that sends a folder of images in one association to the node or the archive."""
        port = {"HEMOSCOPE": 11112, "PACS": 4242}[to]
        return ("storescu", "-v", "-nh", "-aet", title, "-aec", to, "+sd", "127.0.0.1", port, folder)

    def check_logs(self) -> None:
        """No log of Hemoscope has anything of a patient."""
        for name in ("hemoscope-listen", "hemoscope-serve"):
            if (self.folder / f"{name}.log").exists():
                for keyword, value in IDENTITY.items():
                    assert value not in self.log(name), keyword
                    assert value.partition("^")[0] not in self.log(name), keyword


def modality(folder: Path, *, seed: int, slices: int, rows: int = 32) -> str:
    """Write a study with the identity that no log may hold, and return its Study Instance UID."""
    paths = write_series(make_phantom(seed=seed, shape=(slices, rows, rows)), folder, seed=seed)
    for path in paths:
        dataset = dcmread(path)
        for keyword, value in IDENTITY.items():
            setattr(dataset, keyword, value)
        dataset.save_as(path)
    return str(dcmread(paths[0]).StudyInstanceUID)
