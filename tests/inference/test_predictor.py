"""The whole chain: a study's result equals that of its steps, and one bad study does not stop the others."""

import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hemoscope.dicom import readable_series
from hemoscope.dicom.archive import Archive, DecodedSeries, open_archive
from hemoscope.dicom.slices import QualityNote, Rejected, SliceHeader
from hemoscope.errors import SeriesError
from hemoscope.inference.bundle import ModelBundle
from hemoscope.inference.predictor import Predictor, Stage
from hemoscope.inference.preprocess import model_input, slice_box
from hemoscope.inference.probabilities import StudyProbabilities
from hemoscope.labels import LABELS, Hemorrhage
from hemoscope.testing.ct_image import Acquisition
from hemoscope.testing.dicom_writer import write_series
from hemoscope.testing.phantom import Phantom, make_phantom

NOTE = QualityNote(code="planted", message="a note on one slice")


@pytest.fixture(scope="module")
def phantom() -> Phantom:
    return make_phantom(seed=1, shape=(9, 64, 64), bleeds=frozenset({Hemorrhage.INTRAPARENCHYMAL}))


@pytest.fixture(scope="module")
def decoded(phantom: Phantom) -> DecodedSeries:
    count = len(phantom.hounsfield)
    headers = tuple(
        SliceHeader(
            source=f"{index}.dcm",
            frame=0,
            sop_instance_uid=f"1.2.3.{index}",
            study_instance_uid="1.2",
            series_instance_uid="1.2.3",
            rows=64,
            columns=64,
        )
        for index in range(count)
    )
    notes = tuple((NOTE,) if index == 4 else () for index in range(count))
    return DecodedSeries(volume=phantom.volume, slices=headers, slice_quality=notes, quality=(), rejected=())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, phantom: Phantom) -> Path:
    """Two studies, the first with two series."""
    root = tmp_path_factory.mktemp("archive")
    write_series(phantom, root / "a1", seed=1)
    write_series(phantom, root / "a2", seed=1, acquisition=Acquisition(series_number=2, contrast_agent="Iodine"))
    write_series(phantom, root / "b", seed=2)
    return root


@pytest.fixture(scope="module")
def archive(folder: Path) -> Archive:
    return open_archive([folder])


def series_uids(archive: Archive) -> list[str]:
    return [series.series_instance_uid for study in archive.studies for series in study.series]


def test_a_reading_is_what_preprocessing_engine_and_card_say(
    predictor: Predictor, loaded_bundle: ModelBundle, decoded: DecodedSeries
) -> None:
    volume, card = decoded.volume, loaded_bundle.card
    inputs = np.stack([model_input(volume, index, card.preprocessing) for index in range(len(volume))])
    expected = StudyProbabilities.from_logits(
        predictor.engine.run(inputs).logits, positions_mm=volume.positions_mm, card=card
    )
    reading = predictor.read(decoded)
    assert (reading.probabilities.slice_logits == expected.slice_logits).all()
    assert (reading.probabilities.study_probabilities == expected.study_probabilities).all()
    assert reading.findings.probabilities.values == tuple(expected.study_probabilities)
    for row, one in zip(expected.slice_probabilities, reading.findings.slices, strict=True):
        assert one.probabilities.values == tuple(row)


def test_a_volume_alone_is_scored_as_the_series_that_holds_it(predictor: Predictor, decoded: DecodedSeries) -> None:
    probabilities, maps = predictor.probabilities(decoded.volume, maps=True)
    reading = predictor.read(decoded, maps=True)
    assert (probabilities.slice_probabilities == reading.probabilities.slice_probabilities).all()
    assert (probabilities.study_logits == reading.probabilities.study_logits).all()
    assert maps is not None
    assert (maps == reading.maps).all()
    assert predictor.probabilities(decoded.volume)[1] is None


def test_slices_keep_their_names_places_and_notes(predictor: Predictor, decoded: DecodedSeries) -> None:
    findings = predictor.read(decoded).findings
    assert [one.ref.sop_instance_uid for one in findings.slices] == [one.sop_instance_uid for one in decoded.slices]
    assert tuple(one.position_mm for one in findings.slices) == decoded.volume.positions_mm
    assert [one.quality for one in findings.slices] == [(NOTE,) if index == 4 else () for index in range(9)]


def test_key_slices_are_slices_of_the_study_most_probable_first(predictor: Predictor, decoded: DecodedSeries) -> None:
    reading = predictor.read(decoded)
    assert any(finding.present for finding in reading.findings.findings)
    for finding in reading.findings.findings:
        assert bool(finding.slices) == finding.present
        named = [reading.findings.slices[ref.index] for ref in finding.slices]
        assert [one.ref for one in named] == list(finding.slices)
        scores = [one.probabilities[finding.label] for one in named]
        assert scores == sorted(scores, reverse=True)


def test_maps_and_boxes_come_for_every_slice_when_requested(predictor: Predictor, decoded: DecodedSeries) -> None:
    assert predictor.read(decoded).maps is None
    reading = predictor.read(decoded, maps=True)
    assert reading.maps is not None
    assert reading.maps.shape == (9, len(LABELS), 4, 4)
    assert reading.box(3) == slice_box(decoded.volume, 3, reading.preprocessing)


def test_progress_counts_every_slice(predictor: Predictor, decoded: DecodedSeries) -> None:
    seen: list[tuple[Stage, int, int]] = []
    predictor.read(decoded, progress=lambda *event: seen.append(event))
    assert seen == [(Stage.SCORING, done, 9) for done in range(1, 10)]


def test_threads_do_not_change_the_result(
    predictor: Predictor, loaded_bundle: ModelBundle, decoded: DecodedSeries
) -> None:
    assert Predictor(loaded_bundle, threads=3).read(decoded).findings == predictor.read(decoded).findings


def test_one_slice_alone_is_a_study(predictor: Predictor, folder: Path) -> None:
    result = predictor.predict(open_archive([folder / "b" / "IM0005.dcm"]))
    (reading,) = result.studies
    assert len(reading.findings.slices) == 1
    assert result.rejected == ()


def test_every_study_is_read_from_files_in_anatomical_order(
    predictor: Predictor, archive: Archive, phantom: Phantom
) -> None:
    result = predictor.predict(archive)
    assert [one.findings.study_instance_uid for one in result.studies] == [
        study.study_instance_uid for study in archive.studies
    ]
    for reading in result.studies:
        assert (reading.volume.hounsfield == phantom.hounsfield).all()
        positions = [one.position_mm for one in reading.findings.slices]
        assert positions == sorted(positions)
    skipped = [one for reading in result.studies for one in reading.findings.skipped_series]
    assert [one.instances for one in skipped] == [9]


def test_progress_of_a_study_goes_from_reading_to_scoring(predictor: Predictor, archive: Archive) -> None:
    stages: list[Stage] = []
    next(predictor.studies(archive, progress=lambda stage, done, total: stages.append(stage)))
    assert stages == sorted(stages, key=[Stage.READING, Stage.SCORING].index)
    assert set(stages) == {Stage.READING, Stage.SCORING}


def test_a_series_that_was_requested_is_read_and_no_other(predictor: Predictor, archive: Archive) -> None:
    for uid in series_uids(archive):
        (reading,) = predictor.predict(archive, series_instance_uid=uid).studies
        assert reading.findings.series_instance_uid == uid


def test_a_series_that_is_not_there_is_refused_with_what_is(predictor: Predictor, archive: Archive) -> None:
    with pytest.raises(SeriesError, match=f"no series 1.2.3 in the input.*{series_uids(archive)[0]}"):
        predictor.predict(archive, series_instance_uid="1.2.3")


@pytest.fixture
def first_study_fails(monkeypatch: pytest.MonkeyPatch, archive: Archive) -> None:
    read_series: Callable[..., DecodedSeries] = readable_series.read_series

    def refuse_first(archive: Archive, series: Any, **options: Any) -> DecodedSeries:
        if series.study_instance_uid == archive.studies[0].study_instance_uid:
            msg = "every slice was refused"
            raise SeriesError(msg)
        return read_series(archive, series, **options)

    monkeypatch.setattr(readable_series, "read_series", refuse_first)


@pytest.mark.usefixtures("first_study_fails")
def test_a_study_that_cannot_be_read_is_named_and_the_others_continue(predictor: Predictor, archive: Archive) -> None:
    bad, good = (study.study_instance_uid for study in archive.studies)
    result = predictor.predict(archive)
    assert [one.findings.study_instance_uid for one in result.studies] == [good]
    assert result.rejected == (Rejected(source=f"study {bad}", code="no_series", message="every slice was refused"),)


def test_a_truncated_slice_is_rejected_and_the_rest_are_read(
    predictor: Predictor, phantom: Phantom, tmp_path: Path
) -> None:
    paths = write_series(phantom, tmp_path, seed=3)
    paths[2].write_bytes(paths[2].read_bytes()[:-1000])
    result = predictor.predict(open_archive([tmp_path]))
    assert [one.source for one in result.rejected] == ["IM0003.dcm"]
    findings = result.studies[0].findings
    assert len(findings.slices) == len(paths) - 1
    assert [one.ref.index for one in findings.slices] == list(range(len(paths) - 1))


def test_slices_that_cannot_be_decoded_are_unread(predictor: Predictor, phantom: Phantom, tmp_path: Path) -> None:
    paths = write_series(phantom, tmp_path, seed=3)
    archive = open_archive([tmp_path])
    for path in paths[2:4]:
        path.unlink()
    findings = predictor.predict(archive).studies[0].findings
    assert [(one.code, one.count) for one in findings.unread] == [("unreadable", 2)]
    assert not findings.complete
    assert [one.ref.index for one in findings.slices] == list(range(7))


def test_one_study_is_in_memory_at_a_time(predictor: Predictor, archive: Archive) -> None:
    outcomes = predictor.studies(archive)
    first = next(outcomes)
    assert first.reading is not None
    pixels = weakref.ref(first.reading.volume.hounsfield)
    del first
    next(outcomes)
    assert pixels() is None


def test_pixels_are_given_before_they_are_scored(predictor: Predictor, archive: Archive, phantom: Phantom) -> None:
    events: list[str] = []
    shown: list[DecodedSeries] = []

    def show(decoded: DecodedSeries) -> None:
        events.append("shown")
        shown.append(decoded)

    outcome = predictor.read_study(
        archive, archive.studies[0], on_decoded=show, progress=lambda stage, _done, _total: events.append(stage)
    )
    assert list(dict.fromkeys(events)) == [Stage.READING, "shown", Stage.SCORING]
    assert outcome.reading is not None
    assert outcome.reading.volume is shown[0].volume
    (again,) = (one for one in predictor.predict(archive).studies if one.findings == outcome.reading.findings)
    assert (again.volume.hounsfield == phantom.hounsfield).all()


def test_what_is_raised_while_pixels_are_shown_stops_the_study(predictor: Predictor, archive: Archive) -> None:
    def gone(_decoded: DecodedSeries) -> None:
        raise KeyError

    with pytest.raises(KeyError):
        predictor.read_study(archive, archive.studies[0], on_decoded=gone)


@pytest.mark.usefixtures("first_study_fails")
def test_a_study_that_cannot_be_decoded_shows_no_pixels(predictor: Predictor, archive: Archive) -> None:
    shown: list[DecodedSeries] = []
    outcome = predictor.read_study(archive, archive.studies[0], on_decoded=shown.append)
    assert (outcome.reading, shown) == (None, [])
    assert [one.code for one in outcome.rejected] == ["no_series"]
