"""What an image is, from its header: which kinds are read, which are refused by name, and in which order they count."""

from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset

from hemoscope.dicom.archive import open_archive, read_series
from hemoscope.dicom.image_kind import ImageEvidence, ImageKind, image_kind
from hemoscope.dicom.read import read_headers, read_slice, read_slices
from hemoscope.errors import DicomReadError
from hemoscope.testing.dicom_writer import PixelCoding, enhanced_ct_dataset, save
from hemoscope.testing.phantom import make_phantom

DERIVED = ("DERIVED", "SECONDARY", "AXIAL")
ORIGINAL = ("ORIGINAL", "PRIMARY", "AXIAL")


def kind_of(image_type: str = "", **others: object) -> ImageKind:
    return image_kind(ImageEvidence(image_type=tuple(image_type.split("\\")) if image_type else (), **others))


class TestImageType:
    @pytest.mark.parametrize(
        "image_type",
        [
            "",
            r"ORIGINAL\PRIMARY\AXIAL",
            r"ORIGINAL\PRIMARY\AXIAL\CT_SOM5 SPI",
            r"DERIVED\PRIMARY\MPR",
            r"DERIVED\SECONDARY\REFORMATTED\AVERAGE",
            r"DERIVED\PRIMARY\AXIAL\CT_SOM5 MPR",
            r"DERIVED\PRIMARY\PERFUSION\MEAN",
            r"ORIGINAL\PRIMARY\PERFUSION\NONE",
            r"DERIVED\SECONDARY\AXIAL\RESAMPLED",
            r"ORIGINAL\PRIMARY\AXIAL\DELAY",
        ],
    )
    def test_acquired_reformatted_and_averaged_images_are_slices(self, image_type: str) -> None:
        assert kind_of(image_type) is ImageKind.SLICE

    @pytest.mark.parametrize(
        "image_type",
        [
            r"DERIVED\SECONDARY\AXIAL\MIP",
            r"DERIVED\PRIMARY\AXIAL\CT_SOM5 MIP THIN",
            r"DERIVED\SECONDARY\REFORMATTED\MIN_IP",
            r"DERIVED\SECONDARY\MINIP",
            r"DERIVED\PRIMARY\VOLUME\MAXIMUM",
            r"DERIVED\PRIMARY\PROJECTION IMAGE",
            r"DERIVED\SECONDARY\3D",
            r"DERIVED\PRIMARY\AXIAL\CT_SOM5 VRT",
            r"DERIVED\PRIMARY\PERFUSION\MAXIMUM",
        ],
    )
    def test_intensity_projections_and_renderings(self, image_type: str) -> None:
        assert kind_of(image_type) is ImageKind.PROJECTION

    @pytest.mark.parametrize(
        "image_type",
        [
            r"DERIVED\PRIMARY\PERFUSION\RCBF",
            r"DERIVED\PRIMARY\AXIAL\CBV",
            r"DERIVED\SECONDARY\AXIAL\MTT",
            r"DERIVED\SECONDARY\OTHER\TTP",
            r"DERIVED\PRIMARY\PERFUSION",
            r"DERIVED\SECONDARY\AXIAL\ERROR",
            r"DERIVED\PRIMARY\AXIAL\MAT_SPECIFIC",
            r"DERIVED\SECONDARY\AXIAL\IODINE",
            r"DERIVED\PRIMARY\VOLUME\SUBTRACTION",
            r"DERIVED\PRIMARY\AXIAL\DELAY",
            r"DERIVED\SECONDARY\PERFUSION\CSF",
            r"DERIVED\SECONDARY\SEGMENTATION",
        ],
    )
    def test_computed_maps(self, image_type: str) -> None:
        assert kind_of(image_type) is ImageKind.PARAMETER_MAP

    @pytest.mark.parametrize(
        ("image_type", "kind"),
        [
            (r"ORIGINAL\PRIMARY\LOCALIZER\CT_SOM5 TOP", ImageKind.LOCALIZER),
            (r"ORIGINAL\SECONDARY\OTHER\CT_SOM5 PROT", ImageKind.SHEET),
            (r"DERIVED\PRIMARY\AXIAL\VMI", ImageKind.VIRTUAL),
            (r"DERIVED\PRIMARY\AXIAL\MAT_REMOVED", ImageKind.VIRTUAL),
        ],
    )
    def test_other_kinds(self, image_type: str, kind: ImageKind) -> None:
        assert kind_of(image_type) is kind


class TestOtherEvidence:
    @pytest.mark.parametrize(
        ("evidence", "kind"),
        [
            ({"technique": "MAX_IP"}, ImageKind.PROJECTION),
            ({"technique": "MPR"}, ImageKind.SLICE),
            ({"derivation_codes": ("113079",)}, ImageKind.PROJECTION),
            ({"derivation_codes": ("113055",)}, ImageKind.PARAMETER_MAP),
            ({"derivation_codes": ("113072", "113040")}, ImageKind.SLICE),
            ({"derivation": "Maximum intensity projection"}, ImageKind.PROJECTION),
            ({"derivation": "Mean transit time"}, ImageKind.PARAMETER_MAP),
            ({"description": "AX MIP 10/2"}, ImageKind.PROJECTION),
            ({"description": "MIP10"}, ImageKind.PROJECTION),
            ({"derivation": "Iodine"}, ImageKind.PARAMETER_MAP),
            ({"description": "Carte d'iode"}, ImageKind.PARAMETER_MAP),
            ({"description": "Jod-Karte"}, ImageKind.PARAMETER_MAP),
            ({"description": "Blood flow"}, ImageKind.PARAMETER_MAP),
            ({"description": "RAPID Tmax [s]"}, ImageKind.PARAMETER_MAP),
            ({"description": "Iodine (Water)"}, ImageKind.PARAMETER_MAP),
            ({"description": "VNC HEAD 5.0"}, ImageKind.VIRTUAL),
            ({"description": "MonoE 70 keV"}, ImageKind.VIRTUAL),
            ({"description": "1.0 THIN FOR MIP"}, ImageKind.SLICE),
            ({"description": "AX HEAD IODINE CONTRAST"}, ImageKind.SLICE),
            ({"description": "Patientenprotokoll"}, ImageKind.SHEET),
        ],
    )
    def test_technique_derivation_and_description_of_derived_images(self, evidence, kind: ImageKind) -> None:
        assert image_kind(ImageEvidence(image_type=DERIVED, **evidence)) is kind

    def test_the_description_of_an_acquired_image_names_the_study_not_a_computation(self) -> None:
        evidence = {"description": "CTP CBF/CBV/MTT, MIP"}
        assert image_kind(ImageEvidence(image_type=ORIGINAL, **evidence)) is ImageKind.SLICE
        assert image_kind(ImageEvidence(image_type=ORIGINAL, rescale_type="US", **evidence)) is ImageKind.PARAMETER_MAP

    @pytest.mark.parametrize(
        "description",
        [
            *("CBF", "rCBV", "Tmax", "MTT", "AX CBF 5 mm", "HEAD TTP", "CBF/CBV/MTT", "Perf. CBF", "RAPID Tmax [s]"),
            *("Iodine map", "Iodine overlay 1.0", "HEAD Iodine Map", "Jod-Karte", "Cerebral Blood Volume", "relCBF"),
        ],
    )
    def test_an_acquired_image_that_is_called_a_map_is_one(self, description: str) -> None:
        assert image_kind(ImageEvidence(image_type=ORIGINAL, description=description)) is ImageKind.PARAMETER_MAP

    @pytest.mark.parametrize(
        "description",
        ["CTP 5.0 CBF/MTT", "CT perfusion for CBF", "CTP for CBF and MTT", "HEAD IODINE", "AX HEAD IODINE CONTRAST"],
    )
    def test_a_scan_for_maps_is_none(self, description: str) -> None:
        assert image_kind(ImageEvidence(image_type=ORIGINAL, description=description)) is ImageKind.SLICE

    @pytest.mark.parametrize("description", ["MIP AX", "AX MIP 10/2", "Axial 8 mm MinIP", "AxMIP"])
    def test_a_description_that_begins_with_a_projection_names_one(self, description: str) -> None:
        assert image_kind(ImageEvidence(image_type=ORIGINAL, description=description)) is ImageKind.PROJECTION
        assert image_kind(ImageEvidence(image_type=ORIGINAL, description="AX MIP source 1mm")) is ImageKind.SLICE

    def test_the_derivation_of_an_image_that_calls_itself_acquired_counts(self) -> None:
        evidence = ImageEvidence(image_type=ORIGINAL, derivation="Maximum Intensity Projection, 10 mm")
        assert image_kind(evidence) is ImageKind.PROJECTION
        assert image_kind(ImageEvidence(image_type=ORIGINAL, derivation="lossy conversion")) is ImageKind.SLICE

    def test_without_an_image_type_the_description_decides(self) -> None:
        assert kind_of(description="Scout") is ImageKind.LOCALIZER
        assert kind_of(description="MIP 5/2") is ImageKind.PROJECTION


def test_slices_come_before_virtual_images_and_projections_last() -> None:
    read = [kind for kind in ImageKind if kind.is_read]
    assert sorted(read, key=lambda kind: kind.rank) == [ImageKind.SLICE, ImageKind.VIRTUAL, ImageKind.PROJECTION]


def enhanced(frame_types: list[list[str]], image_type: list[str], **of_maps: str) -> Dataset:
    """An Enhanced CT whose frames have these types; ``of_maps`` are attributes of the rescale of derived frames."""
    head = make_phantom(seed=3, shape=(len(frame_types), 64, 64)).hounsfield
    dataset = enhanced_ct_dataset(head, frame_intercepts=[-1024] * len(frame_types))
    dataset.ImageType = image_type
    for groups, kind in zip(dataset.PerFrameFunctionalGroupsSequence, frame_types, strict=True):
        frame_type = Dataset()
        frame_type.FrameType = kind
        groups.CTImageFrameTypeSequence = [frame_type]
        for name, value in of_maps.items() if kind[0] == "DERIVED" else ():
            setattr(groups.PixelValueTransformationSequence[0], name, value)
    return dataset


SLICES, SCOUT = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"], ["ORIGINAL", "PRIMARY", "LOCALIZER", "NONE"]
CBF, MIXED = ["DERIVED", "PRIMARY", "PERFUSION", "RCBF"], ["MIXED", "PRIMARY", "MIXED", "MIXED"]


class TestFramesOfOneFile:
    @pytest.mark.parametrize("units", ["US", "ML/100G"])
    def test_localizers_and_maps_are_refused_by_name_and_the_head_is_read(self, tmp_path: Path, units: str) -> None:
        types = [SCOUT, SCOUT, *[SLICES] * 20, *[CBF] * 3]
        dataset = enhanced(types, MIXED, RescaleType=units)
        save(dataset, tmp_path / "e.dcm")
        archive = open_archive(tmp_path)
        (series,) = archive.studies[0].series
        assert [header.frame for header in series.headers] == list(range(2, 22))
        assert [(one.code, one.source) for one in archive.rejected] == [
            ("localizer", "e.dcm"),
            ("parameter_map", "e.dcm"),
        ]
        assert [one.message[:14] for one in archive.rejected] == ["2 of 25 frames", "3 of 25 frames"]
        assert series.unread == ()
        decoded = read_series(archive, series)
        assert np.array_equal(decoded.volume.hounsfield, make_phantom(seed=3, shape=(25, 64, 64)).hounsfield[2:22])

    def test_a_file_without_a_slice_is_refused_by_its_first_frame(self, as_bytes) -> None:
        with pytest.raises(DicomReadError) as caught:
            read_headers(as_bytes(enhanced([SCOUT, CBF], MIXED)), source="x.dcm")
        assert caught.value.code == "localizer"

    def test_a_map_in_other_units_is_called_a_map(self, as_bytes) -> None:
        data = as_bytes(enhanced([CBF] * 2, MIXED, RescaleType="ML/100G"))
        with pytest.raises(DicomReadError) as caught:
            read_headers(data, source="x.dcm")
        assert caught.value.code == "parameter_map"

    @pytest.mark.parametrize(
        ("image_type", "frame_type", "kind"),
        [
            (["DERIVED", "PRIMARY", "PERFUSION", "RCBF"], SLICES, ImageKind.PARAMETER_MAP),
            (["DERIVED", "PRIMARY", "VOLUME", "MAXIMUM"], SLICES, ImageKind.PROJECTION),
            (SLICES, ["DERIVED", "PRIMARY", "VOLUME", "MAXIMUM"], ImageKind.PROJECTION),
            (MIXED, SLICES, ImageKind.SLICE),
        ],
    )
    def test_of_contradictory_types_the_one_that_is_less_a_slice_counts(
        self, as_bytes, image_type: list[str], frame_type: list[str], kind: ImageKind
    ) -> None:
        (found, _) = read_slices(as_bytes(enhanced([frame_type] * 2, image_type)), source="x.dcm")
        assert found.header.kind is kind


class TestFiles:
    def test_a_projection_is_read_and_named(self, make_slice, as_bytes) -> None:
        data = as_bytes(make_slice(ImageType=[*DERIVED, "MIP"]))
        assert read_headers(data, source="x.dcm")[0].kind is ImageKind.PROJECTION

    def test_a_map_is_refused_by_name_but_its_values_can_be_decoded(self, make_slice, as_bytes) -> None:
        data = as_bytes(make_slice(ImageType=["DERIVED", "PRIMARY", "PERFUSION", "RCBF"], RescaleType="US"))
        with pytest.raises(DicomReadError, match="computed map") as caught:
            read_headers(data, source="x.dcm")
        assert caught.value.code == "parameter_map"
        assert read_slice(data).header.kind is ImageKind.PARAMETER_MAP

    def test_a_protocol_page_is_refused(self, make_slice, as_bytes, refused) -> None:
        sheet = make_slice(ImageType=["ORIGINAL", "SECONDARY", "OTHER", "CT_SOM5 PROT"])
        refused(as_bytes(sheet), "sheet", "page of text")

    def test_units_that_a_slice_calls_unspecified_do_not_make_it_a_map(self, make_slice, as_bytes) -> None:
        assert read_headers(as_bytes(make_slice(RescaleType="US")), source="x.dcm")[0].kind is ImageKind.SLICE

    def test_a_damaged_derivation_sequence_states_nothing(self, make_slice, as_bytes) -> None:
        code = Dataset()
        code.CodeValue = "113055"
        whole = as_bytes(make_slice(DerivationCodeSequence=[code]))
        assert read_slice(whole).header.kind is ImageKind.PARAMETER_MAP
        place = whole.index(b"\x08\x00\x15\x92SQ") + 12
        damaged = whole[: place - 4] + b"\x05\x00\x00\x00" + whole[place : place + 5] + whole[place + 22 :]
        assert read_headers(damaged, source="x.dcm")[0].kind is ImageKind.SLICE

    @pytest.mark.parametrize(
        ("slope", "intercept", "refusal"), [(1, 0, True), (0.31, 0, True), (1, -1024, True), (16, -1024, False)]
    )
    def test_8_bit_values_that_reach_from_air_to_bone_are_read_others_are_pictures(
        self, make_slice, as_bytes, refused, slope: float, intercept: float, refusal: bool
    ) -> None:
        coding = PixelCoding(bits_stored=8, slope=16, intercept=-1024)
        data = as_bytes(make_slice(coding=coding, RescaleSlope=slope, RescaleIntercept=intercept))
        if refusal:
            refused(data, "picture", "8-bit values from")
        else:
            assert read_slice(data).hounsfield.min() < -900

    def test_coarse_steps_carry_a_note(self, make_slice, as_bytes) -> None:
        coding = PixelCoding(bits_stored=8, slope=32, intercept=-1024)
        assert "coarse_hounsfield" in {note.code for note in read_slice(as_bytes(make_slice(coding=coding))).quality}
