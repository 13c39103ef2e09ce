"""A decoder that dies, hangs or lies costs its own file and nothing else; uncompressed pixels need none."""

import errno
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread, uid
from pydicom.encaps import generate_frames

from hemoscope.cli import main
from hemoscope.cli.exit_codes import ExitCode
from hemoscope.dicom import decoder_pool
from hemoscope.dicom.archive import open_archive, read_series
from hemoscope.dicom.decoder_pool import DecoderPool, decode_apart
from hemoscope.dicom.pixels import PixelFormat, decode_frame
from hemoscope.dicom.read import read_slice
from hemoscope.errors import DecoderStartError, DicomReadError
from hemoscope.inference.predictor import Predictor
from hemoscope.testing.dicom_writer import write_series
from hemoscope.testing.phantom import Phantom, make_phantom
from hemoscope.testing.pixel_coding import PixelCoding

FORMAT = PixelFormat(rows=64, columns=64, bits_allocated=16, bits_stored=12, high_bit=11, signed=False)
SYNTAXES = (uid.JPEGLosslessSV1, uid.JPEGLSLossless, uid.JPEG2000Lossless, uid.RLELossless)
# A child that does as the real one, but for the frames with these bytes.
FAKE = """
import os, sys, time
from hemoscope.dicom import decoder_child as child
victim, real = bytes.fromhex(sys.argv[1]), child.answer
def answer(frame, pixels, syntax):
    if victim not in frame:
        return real(frame, pixels, syntax)
    {act}
child.answer = answer
child.main()
"""
ACTS = {
    "dies": "os.abort()",
    "exits": "os._exit(3)",
    "hangs": "time.sleep(600)",
    "answers with less": "return {'type': '<u2', 'damaged': False}, bytes(8)",
    "answers with more": "return {'type': '<u2', 'damaged': False}, bytes(1 << 20)",
    "answers with another type": "return {'type': 'object', 'damaged': False}, bytes(8192)",
    "answers nonsense": "return {'type': ['<u2']}, bytes(8)",
    "shrinks the shared memory": "os.ftruncate(int(sys.argv[-1]), 0); return {'type': '<u2'}, bytes(8192)",
    "takes all memory": "return {'refused': str(len(bytearray(1 << 40)))}, b''",
}


@pytest.fixture
def pool(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[DecoderPool]]:
    """A pool of its own, that nothing else uses."""
    pools = [DecoderPool()]
    monkeypatch.setattr(decoder_pool, "_pools", pools)
    yield pools
    pools[-1].close()


def frame_of(path: Path) -> bytes:
    (frame,) = generate_frames(dcmread(path).PixelData, number_of_frames=1)
    return frame


@pytest.fixture
def files(head: Phantom, tmp_path: Path) -> list[Path]:
    return write_series(head, tmp_path / "given", coding=PixelCoding(transfer_syntax=uid.JPEGLosslessSV1))


@pytest.mark.parametrize("syntax", SYNTAXES, ids=lambda one: one.name)
def test_a_child_decodes_as_this_process_does(head: Phantom, tmp_path: Path, syntax: uid.UID) -> None:
    found = []
    for path in write_series(head, tmp_path, coding=PixelCoding(transfer_syntax=syntax))[:3]:
        given = {"pixels": FORMAT, "syntax": str(syntax), "source": path.name}
        frame = memoryview(frame_of(path))
        words, notes = decode_apart((frame[:100], frame[100:]), **given)
        assert notes == ()
        found.append((words, decode_frame((frame,), **given)))
    for words, expected in found:  # the frames that came later changed nothing
        assert np.array_equal(words, expected)


def test_a_frame_that_needs_more_room_gets_another_child_which_is_kept(
    tmp_path: Path, pool: list[DecoderPool], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoder_pool, "_ROOM", 1)
    children = []
    for side in (64, 96, 64):
        head = make_phantom(seed=1, shape=(1, side, side))
        coding = PixelCoding(transfer_syntax=uid.JPEGLosslessSV1)
        (path,) = write_series(head, tmp_path / f"{len(children)}", coding=coding)
        found = read_slice(path).hounsfield
        assert np.array_equal(found, np.rint(head.volume.hounsfield[0]))
        children.extend(pool[-1]._idle)
    first, larger, again = children
    assert first is not larger is again


@pytest.mark.parametrize("act", ACTS.values(), ids=ACTS)
def test_what_goes_wrong_in_a_decoder_refuses_one_file_and_the_rest_is_read(
    files: list[Path], pool: list[DecoderPool], monkeypatch: pytest.MonkeyPatch, act: str
) -> None:
    whole = read_series(*opened(files))
    victim = files[3]
    command = (sys.executable, "-P", "-c", FAKE.format(act=act), frame_of(victim)[-40:].hex())
    pool[-1].close()
    monkeypatch.setattr(decoder_pool, "_COMMAND", command)
    if act == ACTS["hangs"]:
        monkeypatch.setattr(decoder_pool, "_MOST_S", 20.0)
    decoded = read_series(*opened(files), threads=2)
    ((refused),) = decoded.rejected
    assert (refused.source, refused.code) == (victim.name, "decoder_died")
    assert "its decoder" in refused.message
    assert "Export the slice again, uncompressed if possible" in refused.message
    place = [header.source for header in whole.slices].index(victim.name)
    assert np.array_equal(decoded.volume.hounsfield, np.delete(whole.volume.hounsfield, place, axis=0))
    assert [(one.code, one.count) for one in decoded.unread] == [("decoder_died", 1)]


def test_what_a_python_prints_that_cannot_start_reaches_no_log(
    files: list[Path],
    pool: list[DecoderPool],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "numpy.py").write_text("raise MemoryError('WINTERBOTTOM')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    pool[-1].close()
    with pytest.raises(DicomReadError, match=r"its decoder died \(exit code 1\)"):
        read_slice(files[0])
    assert capfd.readouterr() == ("", "")


def opened(files: list[Path]) -> tuple[object, object]:
    archive = open_archive(files[0].parent)
    return archive, archive.studies[0].series[0]


def test_a_frame_that_is_refused_costs_no_child(files: list[Path], pool: list[DecoderPool]) -> None:
    whole = files[0].read_bytes()
    read_slice(whole)
    (child,) = pool[-1]._idle
    dataset = dcmread(files[0])
    dataset.Rows += 1
    dataset.save_as(files[0])
    with pytest.raises(DicomReadError, match="it holds 64 x 64 x 1 samples, the header says 65 x 64"):
        read_slice(files[0])
    assert pool[-1]._idle == [child]


def test_uncompressed_pixels_need_no_child(head: Phantom, tmp_path: Path, pool: list[DecoderPool]) -> None:
    read_series(*opened(write_series(head, tmp_path / "given")))
    assert pool[-1]._idle == []


def test_children_are_kept_and_never_more_than_threads(files: list[Path], pool: list[DecoderPool]) -> None:
    read_series(*opened(files), threads=2)
    first = list(pool[-1]._idle)
    assert 1 <= len(first) <= 2
    read_series(*opened(files), threads=1)
    assert pool[-1]._idle == first
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(read_slice, files))
    assert len(pool[-1]._idle) <= 4


def test_a_decoder_that_cannot_be_started_refuses_no_slice(
    files: list[Path], pool: list[DecoderPool], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The machine is at fault: a study that lacked all its slices would be worse than none."""
    archive, series = opened(files)
    with monkeypatch.context() as patched:
        patched.setattr(decoder_pool, "_COMMAND", ("/nonexistent/python",))
        with pytest.raises(DecoderStartError, match=r"can be started on this machine \(No such file.*try again"):
            read_slice(files[0])
        with pytest.raises(DecoderStartError, match="can be started on this machine"):
            read_series(archive, series, threads=2)
    assert read_series(*opened(files), threads=2).rejected == ()


def test_predict_says_that_no_decoder_can_be_started(
    files: list[Path],
    pool: list[DecoderPool],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tiny_bundle: Path,
) -> None:
    monkeypatch.setattr(decoder_pool, "_COMMAND", ("/nonexistent/python",))
    assert main(["predict", str(files[0].parent), "--model", str(tiny_bundle)]) == ExitCode.FAILED
    assert "hemoscope predict: no decoder of compressed pixels can be started" in capsys.readouterr().err


@pytest.mark.skipif(sys.platform != "linux", reason="counts descriptors in /proc, and only Linux has seals")
@pytest.mark.parametrize("failing", ["ftruncate", "seal", "map", "start"])
def test_a_decoder_that_cannot_be_started_leaves_nothing_open(
    files: list[Path], pool: list[DecoderPool], monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.ENOMEM, "Cannot allocate memory")

    place = {"ftruncate": (os, "ftruncate"), "seal": (decoder_pool.fcntl, "fcntl"), "map": (decoder_pool.mmap, "mmap")}
    started = []
    popen = subprocess.Popen
    before = sorted(Path("/proc/self/fd").iterdir())
    with monkeypatch.context() as patched:
        patched.setattr(subprocess, "Popen", lambda *args, **more: started.append(popen(*args, **more)) or started[-1])
        patched.setattr(*place.get(failing, (subprocess, "Popen")), refuse)
        with pytest.raises(DecoderStartError, match="Cannot allocate memory"):
            read_slice(files[0])
    assert started == []
    assert sorted(Path("/proc/self/fd").iterdir()) == before


def test_children_end_with_the_process_that_started_them(files: list[Path]) -> None:
    """Also when it is killed: their input ends."""
    program = (
        "import os, sys; from pathlib import Path; from hemoscope.dicom import decoder_pool, read;"
        "read.read_slice(Path(sys.argv[1])); print(decoder_pool._pools[-1]._idle[0]._process.pid, flush=True);"
        "os.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-c", program, files[0]], stdout=subprocess.PIPE, check=False)
    child = int(done.stdout)
    until = time.monotonic() + 60
    while Path(f"/proc/{child}").exists() and time.monotonic() < until:
        os.sched_yield()
    assert not Path(f"/proc/{child}").exists()


def test_a_forked_process_starts_children_of_its_own(files: list[Path], pool: list[DecoderPool]) -> None:
    read_slice(files[0])
    before = list(pool)
    pid = os.fork()
    if pid == 0:  # pragma: no cover - another process
        good = decoder_pool._pools[-1] not in before and read_slice(files[1]).quality == ()
        decoder_pool.close()
        os._exit(0 if good else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert read_slice(files[2]).quality == ()


def test_a_study_with_a_dead_decoder_is_incomplete_and_no_other_study_suffers(
    files: list[Path], pool: list[DecoderPool], monkeypatch: pytest.MonkeyPatch, predictor: Predictor
) -> None:
    command = (sys.executable, "-P", "-c", FAKE.format(act=ACTS["dies"]), frame_of(files[3])[-40:].hex())
    monkeypatch.setattr(decoder_pool, "_COMMAND", command)
    prediction = predictor.predict(open_archive(files[0].parent))
    assert [one.code for one in prediction.rejected] == ["decoder_died"]
    (reading,) = prediction.studies
    assert not reading.findings.complete
    assert len(reading.findings.slices) == len(files) - 1
