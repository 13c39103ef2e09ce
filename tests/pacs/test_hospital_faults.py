"""A hospital in which programs die in the middle of their work: no image and no result is lost or doubled."""

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from .hospital import KO, SC, SR, Hospital, modality

pytestmark = [
    pytest.mark.journey,
    pytest.mark.reference_tool("Orthanc", "storescu"),
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root, for a network of its own"),
    pytest.mark.timeout(900),
]
NODE = """
[node]
ae_title = "HEMOSCOPE"
port = 11112
quiet_seconds = 5

[results]
hold_incomplete_seconds = 0

[[peer]]
ae_title = "STORESCU"
addresses = ["127.0.0.1"]

[[peer]]
ae_title = "OTHER"
addresses = ["127.0.0.1"]

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
# A PDU that declares 4 GB; 300 MB are sent unless the connection is closed before.
FOUR_GIGABYTES = """
import socket, struct
connection = socket.create_connection(("127.0.0.1", 11112), timeout=60)
connection.sendall(struct.pack(">BxI", 1, 0xFFFFFFFF))
try:
    for _ in range(300):
        connection.sendall(bytes(1 << 20))
except OSError:
    print("closed")
"""


@pytest.fixture(scope="module")
def hospital(tmp_path_factory: pytest.TempPathFactory, tiny_bundle: Path) -> Iterator[Hospital]:
    if shutil.which("ip") is None:
        pytest.skip("ip is not installed: apt-get install iproute2")
    with ExitStack() as running:
        here = Hospital(tmp_path_factory.mktemp("hospital"), running)
        here.orthanc()
        here.listen(NODE)
        here.serve(tiny_bundle)
        yield here


def settled(hospital: Hospital, study: str) -> None:
    """Wait until a study was read and its results are in the archive, each once, and until nothing waits any more."""
    hospital.until("results in the archive", lambda: set(hospital.results(study)) >= {SR, SC})
    hospital.until("delivery of everything", lambda: not hospital.waiting())


def read(hospital: Hospital, before: int) -> list[tuple[str, int]]:
    """State and slices of the studies that came into the reading room after the first ``before``, oldest first."""
    new = sorted(hospital.worklist(), key=lambda one: one["received_at"])[before:]
    return [(one["state"], one["instances"]) for one in new]


def results(hospital: Hospital, study: str) -> list[str]:
    return [one for one in hospital.results(study) if one != KO]  # key slices only where something is suspected


def job_states(hospital: Hospital) -> set[str]:
    """The states of the jobs, from the database itself: a request for each look would take too long."""
    with closing(sqlite3.connect(f"file:{hospital.folder / 'store' / 'hemoscope.sqlite3'}?mode=ro", uri=True)) as file:
        return {state for (state,) in file.execute("SELECT state FROM jobs")}


def kill_worker(hospital: Hospital) -> None:
    room = hospital.pid("hemoscope-serve")
    children = Path(f"/proc/{room}/task").glob("*/children")
    for pid in {pid for path in children for pid in path.read_text().split()}:
        if b"hemoscope.store.worker" in Path(f"/proc/{pid}/cmdline").read_bytes():
            os.kill(int(pid), signal.SIGKILL)
            return
    pytest.fail("there is no worker")


def test_a_node_and_a_worker_that_are_killed_lose_and_double_nothing(hospital: Hospital, tmp_path: Path) -> None:
    study, before = modality(tmp_path / "images", seed=11, slices=100), len(hospital.worklist())
    sending = hospital.start("storescu", hospital.store_images(tmp_path / "images"))
    hospital.until("the first images", lambda: len(hospital.received()) >= 5, every_s=0.005)
    hospital.stop("hemoscope-listen", signal.SIGKILL)
    assert sending.wait(60) != 0, "everything was sent before the node was killed"
    kept = {path.name for path in hospital.received()}
    hospital.listen_again()
    hospital.run(*hospital.store_images(tmp_path / "images"))
    assert kept <= {path.name for path in hospital.received()}
    assert len(hospital.received()) == 100
    hospital.until("reading", lambda: "running" in job_states(hospital), every_s=0.005)
    kill_worker(hospital)
    settled(hospital, study)
    assert read(hospital, before) == [("done", 100)]
    assert results(hospital, study) == sorted((SR, SC))
    hospital.check_logs()


def test_an_archive_that_is_killed_while_it_receives_loses_and_doubles_nothing(
    hospital: Hospital, tmp_path: Path
) -> None:
    study, before = modality(tmp_path / "images", seed=12, slices=60), len(hospital.worklist())
    stored = len(list((hospital.folder / "pacs").rglob("*")))
    sending = hospital.start("storescu", hospital.store_images(tmp_path / "images", to="PACS"))
    hospital.until(
        "the first images", lambda: len(list((hospital.folder / "pacs").rglob("*"))) > stored + 5, every_s=0.005
    )
    hospital.stop("orthanc", signal.SIGKILL)
    assert sending.wait(60) != 0, "everything was sent before the archive was killed"
    hospital.start_again("orthanc")
    hospital.until("Orthanc's next start", lambda: hospital.get("/system"))
    hospital.run(*hospital.store_images(tmp_path / "images", to="PACS"))
    settled(hospital, study)
    assert read(hospital, before)[-1] == ("done", 60)
    assert results(hospital, study) == sorted((SR, SC))
    assert len(hospital.classes(study)) - len(hospital.results(study)) == 60
    hospital.check_logs()


def test_results_wait_for_an_archive_that_is_away_and_come_once(hospital: Hospital, tmp_path: Path) -> None:
    study, before = modality(tmp_path / "images", seed=13, slices=6), len(hospital.worklist())
    hospital.stop("orthanc")
    complaints = hospital.log("hemoscope-listen").count("does not answer")
    hospital.run(*hospital.store_images(tmp_path / "images"))
    hospital.until("results that wait", hospital.waiting)
    hospital.until("a first try", lambda: hospital.log("hemoscope-listen").count("does not answer") > complaints)
    waiting = {path.name for path in hospital.waiting()}
    hospital.start_again("orthanc")
    hospital.until("Orthanc's next start", lambda: hospital.get("/system"))
    assert {path.name for path in hospital.waiting()} == waiting
    settled(hospital, study)
    assert read(hospital, before) == [("done", 6)]
    assert results(hospital, study) == sorted((SR, SC))
    hospital.check_logs()


@pytest.mark.slow
def test_two_modalities_at_once_and_a_study_sent_twice_are_read_once_each(hospital: Hospital, tmp_path: Path) -> None:
    before = len(hospital.worklist())
    studies = [modality(tmp_path / name, seed=20 + number, slices=20) for number, name in enumerate(("one", "two"))]
    for _ in range(2):
        sending = [
            hospital.start(title, hospital.store_images(tmp_path / name, title=title))
            for name, title in (("one", "STORESCU"), ("two", "OTHER"))
        ]
        assert [one.wait(120) for one in sending] == [0, 0]
    for study in studies:
        settled(hospital, study)
        assert results(hospital, study) == sorted((SR, SC))
    assert read(hospital, before) == [("done", 20)] * 2
    hospital.check_logs()


def test_a_full_spool_refuses_by_its_status_and_takes_images_again_when_there_is_room(tmp_path: Path) -> None:
    modality(tmp_path / "images", seed=14, slices=40, rows=128)
    spool = tmp_path / "store" / ".received"
    spool.parent.mkdir(mode=0o700)
    spool.mkdir()
    with ExitStack() as running:
        hospital = Hospital(tmp_path, running)
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=600k", "none", spool], check=True)
        running.callback(subprocess.run, ["umount", "-l", spool], check=True)
        hospital.listen(NODE.replace("quiet_seconds = 5", "quiet_seconds = 3600"))
        told = hospital.run(*hospital.store_images(tmp_path / "images"), check=False)
        assert "Refused: OutOfResources" in told
        assert told.count("(Success)") == len(hospital.received()) < 40
        subprocess.run(["mount", "-o", "remount,size=50m", spool], check=True)
        told = hospital.run(*hospital.store_images(tmp_path / "images"), check=False)
        assert told.count("(Success)") == len(hospital.received()) == 40
        hospital.check_logs()


@pytest.mark.slow
def test_two_thousand_images_in_one_association_are_as_many_at_both_ends(hospital: Hospital, tmp_path: Path) -> None:
    study, before = modality(tmp_path / "images", seed=15, slices=2000, rows=16), len(hospital.worklist())
    there = len(hospital.received())
    told = hospital.run(*hospital.store_images(tmp_path / "images"), check=False)
    assert told.count("(Success)") == len(hospital.received()) - there == 2000
    settled(hospital, study)
    assert read(hospital, before) == [("done", 2000)]
    assert results(hospital, study) == sorted((SR, SC))
    hospital.check_logs()


def test_a_pdu_that_declares_four_gigabytes_costs_no_memory(hospital: Hospital) -> None:
    hospital.run("echoscu", "-aec", "HEMOSCOPE", "-aet", "STORESCU", "127.0.0.1", 11112)
    hospital.peak_kib("hemoscope-listen")
    before = hospital.peak_kib("hemoscope-listen")
    assert hospital.run(sys.executable, "-I", "-c", FOUR_GIGABYTES).strip() == "closed"
    rise = hospital.peak_kib("hemoscope-listen") - before
    assert rise <= 8 << 10
