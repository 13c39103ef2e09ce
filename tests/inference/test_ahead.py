"""A series is scored while it is decoded: with the same result, and with nothing left behind whatever goes wrong."""

import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import dcmread, uid
from pydicom.encaps import generate_frames

from hemoscope.dicom import archive as archive_module
from hemoscope.dicom import decoder_pool
from hemoscope.dicom.archive import Archive, open_archive
from hemoscope.dicom.decoder_pool import DecoderPool
from hemoscope.dicom.readable_series import read_best_series
from hemoscope.errors import BundleError
from hemoscope.inference.engine import Engine
from hemoscope.inference.predictor import Predictor, Stage, StudyReading
from hemoscope.testing.dicom_writer import write_series
from hemoscope.testing.phantom import make_phantom
from hemoscope.testing.pixel_coding import PixelCoding

# A decoder that dies at frames with these bytes.
DYING = """
import os, sys
from hemoscope.dicom import decoder_child as child
victim, real = bytes.fromhex(sys.argv[1]), child.answer
child.answer = lambda frame, *rest: os.abort() if victim in frame else real(frame, *rest)
child.main()
"""


@pytest.fixture
def pool(monkeypatch: pytest.MonkeyPatch) -> Iterator[DecoderPool]:
    """A pool of its own, that nothing else uses."""
    pools = [DecoderPool()]
    monkeypatch.setattr(decoder_pool, "_pools", pools)
    yield pools[0]
    pools[0].close()


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, ...]:
    head = make_phantom(seed=5, shape=(24, 64, 64))
    return write_series(head, tmp_path / "given", coding=PixelCoding(transfer_syntax=uid.JPEGLosslessSV1))


@pytest.fixture
def scored(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The thread of each run of the engine."""
    threads: list[str] = []
    run = Engine.run

    def spied(self: Engine, *given: Any, **options: Any) -> Any:
        threads.append(threading.current_thread().name)
        return run(self, *given, **options)

    monkeypatch.setattr(Engine, "run", spied)
    return threads


def afterwards(predictor: Predictor, folder: Path) -> StudyReading:
    """Read a study stage by stage."""
    archive = open_archive(folder)
    found = read_best_series(archive, archive.studies[0])
    assert found.decoded is not None
    return predictor.read(found.decoded, skipped=found.skipped, maps=True)


def whole(predictor: Predictor, archive: Archive, **options: Any) -> StudyReading:
    outcome = predictor.read_study(archive, archive.studies[0], maps=True, **options)
    assert outcome.reading is not None
    return outcome.reading


def assert_equal(one: StudyReading, other: StudyReading) -> None:
    assert one.findings == other.findings
    assert one.maps is not None
    assert other.maps is not None
    assert np.array_equal(one.maps, other.maps)
    assert np.array_equal(one.probabilities.slice_logits, other.probabilities.slice_logits)
    assert np.array_equal(one.volume.hounsfield, other.volume.hounsfield)


def left_behind() -> list[str]:
    return [one.name for one in threading.enumerate() if one.name.startswith(("score-ahead", "decode", "prepare"))]


def test_a_study_is_scored_once_while_it_is_decoded_with_the_scores_of_stage_by_stage(
    files: tuple[Path, ...], predictor: Predictor, scored: list[str]
) -> None:
    expected = afterwards(predictor, files[0].parent)
    scored.clear()
    steps: list[tuple[str, int, int]] = []
    reading = whole(predictor, open_archive(files[0].parent), progress=lambda *step: steps.append(step))
    assert_equal(reading, expected)
    assert len(scored) == 1
    assert scored[0].startswith("score-ahead")
    assert steps == [(stage, done, 24) for stage in (Stage.READING, Stage.SCORING) for done in range(1, 25)]
    assert left_behind() == []


def test_the_engine_scores_before_the_last_slice_is_decoded(
    files: tuple[Path, ...], predictor: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = threading.Event()
    checked, place = Engine._checked, archive_module._place

    def first(self: Engine, image: Any) -> Any:
        begun.set()
        return checked(self, image)

    def last(one: Any, index: int, pixels: Any) -> None:
        if index == len(files) - 1:
            assert begun.wait(60)
        place(one, index, pixels)

    monkeypatch.setattr(Engine, "_checked", first)
    monkeypatch.setattr(archive_module, "_place", last)
    whole(predictor, open_archive(files[0].parent))


def test_a_decoder_that_dies_meanwhile_costs_its_slice_and_the_scores_made_ahead(
    files: tuple[Path, ...],
    predictor: Predictor,
    pool: DecoderPool,
    scored: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (frame,) = generate_frames(dcmread(files[12]).PixelData, number_of_frames=1)
    monkeypatch.setattr(decoder_pool, "_COMMAND", (sys.executable, "-P", "-c", DYING, frame[-40:].hex()))
    expected = afterwards(predictor, files[0].parent)
    scored.clear()
    reading = whole(predictor, open_archive(files[0].parent))
    assert_equal(reading, expected)
    assert [one.code for one in reading.findings.unread] == ["decoder_died"]
    assert scored[-1] == threading.current_thread().name
    assert left_behind() == []
    assert len(pool._idle) <= 2


def test_an_error_of_the_model_is_raised_and_leaves_no_thread_and_no_busy_child(
    files: tuple[Path, ...], predictor: Predictor, pool: DecoderPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_given: Any, **_options: Any) -> Any:
        msg = "model bundle: model.onnx: gave a score that is not a finite number"
        raise BundleError(msg)

    monkeypatch.setattr(Engine, "run", broken)
    archive = open_archive(files[0].parent)
    with pytest.raises(BundleError, match="not a finite number"):
        predictor.read_study(archive, archive.studies[0])
    assert left_behind() == []
    assert len(pool._idle) == 1  # the predictor's one thread, and its child is free again


def test_an_interruption_stops_decoding_and_scoring(
    files: tuple[Path, ...], predictor: Predictor, pool: DecoderPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[int] = []
    place = archive_module._place

    def counted(one: Any, index: int, pixels: Any) -> None:
        decoded.append(index)
        place(one, index, pixels)

    def interrupt(stage: str, done: int, _total: int) -> None:
        if (stage, done) == (Stage.READING, 1):
            raise KeyboardInterrupt

    monkeypatch.setattr(archive_module, "_place", counted)
    archive = open_archive(files[0].parent)
    with pytest.raises(KeyboardInterrupt):
        predictor.read_study(archive, archive.studies[0], progress=interrupt)
    assert left_behind() == []
    assert len(decoded) < len(files)


def test_a_series_that_is_refused_is_refused_although_it_was_scored(
    tmp_path: Path, predictor: Predictor, scored: list[str]
) -> None:
    noise = np.random.default_rng(0).normal(0, 600, (24, 64, 64)).astype(np.int16).clip(-1000, 2000)
    write_series(noise, tmp_path, coding=PixelCoding(bits_stored=16))
    archive = open_archive(tmp_path)
    outcome = predictor.read_study(archive, archive.studies[0])
    assert outcome.reading is None
    assert {one.code for one in outcome.rejected} == {"implausible_hounsfield"}
    assert left_behind() == []
