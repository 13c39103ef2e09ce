"""``hemoscope predict`` on worker processes: the rows, the order and the errors of one process."""

import argparse
import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from hemoscope import cli
from hemoscope.cli.exit_codes import ExitCode
from hemoscope.cli.predict import _inputs
from hemoscope.cli.predict_tasks import _for_workers
from hemoscope.progress import no_stage_progress
from hemoscope.testing.ct_image import Acquisition
from hemoscope.testing.dicom_writer import write_series
from hemoscope.testing.phantom import make_phantom

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four studies, two of them of two patients with one UID, in a ZIP and beside it, and a file that is refused."""
    folder = tmp_path_factory.mktemp("many") / "given"
    for number, (seed, patient) in enumerate(((0, "A"), (1, "B"), (1, "C"), (2, "D"))):
        head = make_phantom(seed=number, shape=(3, 48, 48))
        write_series(head, folder / str(number), seed=seed, acquisition=Acquisition(patient_id=patient))
    shutil.make_archive(str(folder / "zipped"), "zip", folder / "3")
    shutil.rmtree(folder / "3")
    (folder / "notes.txt").write_text("no DICOM in here")
    return folder


@pytest.fixture
def run(tiny_bundle: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    def call(*words: object) -> tuple[int, str, str]:
        code = cli.main(["predict", *map(str, words), "--model", str(tiny_bundle), "--format", "json"])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


def files_in(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_two_workers_give_the_rows_the_order_and_the_files_of_one_process(
    given: Path, run: Run, tmp_path: Path
) -> None:
    code, out, _ = run(given, "--output", tmp_path / "one", "--threads", "1")
    assert code == ExitCode.SOME_REFUSED
    assert len(json.loads(out)["studies"]) == 4
    again = run(given, "--output", tmp_path / "two", "--workers", "2")
    assert again[:2] == (code, out)
    assert files_in(tmp_path / "two") == files_in(tmp_path / "one")
    resumed = run(given, "--output", tmp_path / "two", "--resume")
    assert resumed[:2] == (code, out)
    assert "4 of 4 studies are finished" in resumed[2]


def test_the_workers_of_a_dask_cluster_do_as_well_and_are_not_given_every_study_at_once(
    given: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    from distributed import Client, LocalCluster

    monkeypatch.setattr("hemoscope.data.processes._AHEAD", 1)
    handed_out: list[object] = []
    submit = Client.submit
    monkeypatch.setattr(Client, "submit", lambda *words, **kw: (handed_out.append(1), submit(*words, **kw))[1])
    code, out, _ = run(given, "--threads", "1")
    monkeypatch.chdir(given.parent)  # the workers were started elsewhere
    with LocalCluster(n_workers=1, threads_per_worker=2, processes=False, dashboard_address=None) as cluster:
        assert run(given.name, "--threads", "1", "--dask", cluster.scheduler_address)[:2] == (code, out)
    assert len(handed_out) == 3  # the studies with one UID are read by one worker


@pytest.mark.parametrize(
    ("more", "kept"), [({}, True), ({"workers": 1}, True), ({"workers": 2}, False), ({"dask": "tcp://a:1"}, False)]
)
def test_files_are_kept_only_for_studies_that_are_read_in_this_process(
    given: Path, more: dict[str, object], kept: bool
) -> None:
    given_words = {"paths": [given], "series": None, "limit": [], "workers": None, "dask": None}
    archive, _ = _inputs(argparse.Namespace(**{**given_words, **more}), no_stage_progress)
    taken = [archive.kept.take(archive.sources[name]) for name in archive.part().sources]
    assert taken
    assert {one is not None for one in taken} == {kept}


def test_both_kinds_of_workers_are_refused(given: Path, run: Run) -> None:
    code, out, err = run(given, "--workers", "2", "--dask", "tcp://127.0.0.1:1")
    assert (code, out) == (ExitCode.USAGE, "")
    assert "give at least one worker, or the address of a cluster" in err


def test_a_series_that_no_study_holds_is_refused_as_by_one_process(given: Path, run: Run) -> None:
    expected = run(given, "--series", "1.2.3")
    assert expected[0] != ExitCode.OK
    assert run(given, "--series", "1.2.3", "--workers", "2") == expected


@pytest.mark.journey
def test_ctrl_c_ends_the_workers_and_their_children(tiny_bundle: Path, tmp_path: Path) -> None:
    head = make_phantom(seed=0, shape=(3, 48, 48))
    for number in range(200):
        write_series(head, tmp_path / "many" / str(number), seed=number)
    rows = tmp_path / "out" / "studies.csv"
    words = [tmp_path / "many", "--output", rows.parent, "--model", tiny_bundle, "--workers", "2"]
    program = [sys.executable, "-m", "hemoscope", "predict", *map(str, words)]
    process = subprocess.Popen(program, stderr=subprocess.PIPE, start_new_session=True)
    until = time.monotonic() + 240
    while time.monotonic() < until and not (rows.exists() and len(rows.read_text().splitlines()) > 1):
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == ExitCode.INTERRUPTED, said
    # Python's resource tracker ends when it sees that its parent did.
    while subprocess.run(["pgrep", "-g", str(process.pid)], stdout=subprocess.PIPE, check=False).stdout:
        assert time.monotonic() < until + 60
        time.sleep(0.05)
    assert 1 < len(rows.read_text().splitlines()) < 200


def test_local_workers_share_all_processors_and_those_of_a_cluster_take_their_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("hemoscope.inference.engine.available_processors", lambda: 32)
    words = ("threads", "workers", "dask", "model", "output", "dicom")
    given = {**dict.fromkeys(("series", "identify", "heatmaps", "pdf", "device", "precision")), **dict.fromkeys(words)}
    for more, threads in (({"workers": 4}, 8), ({"workers": 16}, 2), ({"dask": "tcp://a:1"}, None)):
        assert _for_workers(argparse.Namespace(**{**given, **more})).threads == threads
