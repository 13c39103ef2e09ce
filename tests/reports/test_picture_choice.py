"""Which slices are drawn for which label, and that heat is in the units of the slice's probability."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hemoscope.dicom.archive import open_archive
from hemoscope.dicom.slices import QualityNote, SliceRef
from hemoscope.inference.card import ModelCard
from hemoscope.inference.predictor import Predictor, StudyReading
from hemoscope.labels import LABELS, Hemorrhage, PerLabel
from hemoscope.reports.picture_choice import picture_of, pictures_of
from hemoscope.testing.ct_image import Acquisition
from hemoscope.testing.dicom_writer import write_series
from hemoscope.testing.phantom import make_phantom

SLICES = 4


@pytest.fixture(scope="module")
def reading(tmp_path_factory: pytest.TempPathFactory, predictor: Predictor) -> StudyReading:
    folder = tmp_path_factory.mktemp("series")
    write_series(make_phantom(seed=2, shape=(SLICES, 64, 64)), folder)
    (study,) = predictor.predict(open_archive([folder]), maps=True).studies
    keys = tuple(study.findings.slices[index].ref for index in (2, 0))
    findings = tuple(
        replace(finding, slices=keys if finding.label in ("any", "subdural") else ())
        for finding in study.findings.findings
    )
    return replace(study, findings=replace(study.findings, findings=findings))


def ref(index: int) -> SliceRef:
    return SliceRef(index=index, sop_instance_uid="1.2.3", frame=0)


@pytest.fixture
def card(predictor: Predictor) -> ModelCard:
    return predictor.bundle.card


def drawn(reading: StudyReading, card: ModelCard, **options: bool) -> list[tuple[int, str]]:
    return [(picture.number, picture.label.value) for picture in pictures_of(reading, card, **options)]


def test_each_key_slice_of_each_label_is_drawn_once_in_order(reading: StudyReading, card: ModelCard) -> None:
    assert drawn(reading, card) == [(1, "any"), (1, "subdural"), (3, "any"), (3, "subdural")]


def test_every_slice_can_be_drawn(reading: StudyReading, card: ModelCard) -> None:
    found = drawn(reading, card, every_slice=True)
    assert [number for number, label in found if label == "any"] == [1, 2, 3, 4]
    assert len(found) == len(set(found)) == 6


@pytest.mark.parametrize("label", LABELS)
def test_heat_is_the_map_calibrated_and_consistent_at_each_place(
    reading: StudyReading, card: ModelCard, label: Hemorrhage
) -> None:
    picture = picture_of(reading, card, ref(1), label)
    own = {one: card.calibration.slice[one].apply(reading.maps[1, i].astype(float)) for i, one in enumerate(LABELS)}
    highest = np.max([own[one] for one in LABELS if one is Hemorrhage.ANY or card.established[one]], axis=0)
    expected = highest if label is Hemorrhage.ANY else np.minimum(own[label], highest)
    np.testing.assert_allclose(picture.heat.values, expected, atol=1e-6)
    assert picture.heat.box == reading.box(1)
    assert picture.probability == reading.findings.slices[1].probabilities[label]


def test_measured_geometry_is_shown_and_assumed_geometry_is_not(reading: StudyReading, card: ModelCard) -> None:
    picture = picture_of(reading, card, ref(1), Hemorrhage.ANY)
    assert picture.position_mm == reading.volume.positions_mm[1]
    assert picture.pixel_spacing_mm == reading.volume.spacing_mm[1:]
    assert picture.orientation == reading.volume.orientation
    note = QualityNote(code="geometry_assumed", message="assumed")
    assumed = replace(reading, findings=replace(reading.findings, quality=(note,)))
    picture = picture_of(assumed, card, ref(1), Hemorrhage.ANY)
    assert (picture.position_mm, picture.pixel_spacing_mm, picture.orientation) == (None, None, None)


def test_a_label_that_is_not_established_is_marked(reading: StudyReading, card: ModelCard) -> None:
    doubted = replace(card, established=PerLabel.build(lambda label: label != "subdural"))
    assert not picture_of(reading, doubted, ref(0), Hemorrhage.SUBDURAL).established
    assert picture_of(reading, doubted, ref(0), Hemorrhage.ANY).established


def test_a_reading_without_maps_is_refused(reading: StudyReading, card: ModelCard) -> None:
    with pytest.raises(ValueError, match="read it with maps=True"):
        picture_of(replace(reading, maps=None), card, ref(0), Hemorrhage.ANY)


def test_pictures_show_the_radiological_convention_however_slices_are_stored(
    tmp_path: Path, predictor: Predictor, card: ModelCard
) -> None:
    head = make_phantom(seed=2, shape=(SLICES, 64, 64))
    prone = Acquisition(orientation=(-1.0, 0.0, 0.0, 0.0, -1.0, 0.0))
    write_series(head, tmp_path / "supine")
    write_series(head.hounsfield[:, ::-1, ::-1], tmp_path / "prone", spacing_mm=head.spacing_mm, acquisition=prone)
    supine, turned = (
        picture_of(predictor.predict(open_archive(tmp_path / name), maps=True).studies[0], card, ref(1), Hemorrhage.ANY)
        for name in ("supine", "prone")
    )
    assert np.array_equal(turned.hounsfield, supine.hounsfield)
    assert turned.orientation == supine.orientation == (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
    assert turned.heat.box == supine.heat.box
    np.testing.assert_allclose(turned.heat.values, supine.heat.values, atol=1e-6)
