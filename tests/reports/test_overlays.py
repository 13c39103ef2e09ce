"""Overlays: heat lands where the model looked, and marks are drawn only where they are known to be true."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from hemoscope.inference.heat_maps import HeatMap
from hemoscope.inference.preprocess import Box
from hemoscope.labels import LABELS, Hemorrhage
from hemoscope.reports import overlays
from hemoscope.reports.colours import heat_colours, heat_opacity, heat_over
from hemoscope.reports.overlays import SlicePicture, draw_overlay, side_letters

AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)


def make_picture(**changes: object) -> SlicePicture:
    hounsfield = np.full((64, 64), -1000, dtype=np.int16)
    hounsfield[8:56, 8:56] = 35
    heat = np.zeros((8, 8), dtype=np.float32)
    heat[1, 6] = 1.0
    fields: dict[str, object] = {
        "hounsfield": hounsfield,
        "heat": HeatMap(values=heat, box=Box(top=8, left=8, side=48)),
        "label": Hemorrhage.SUBDURAL,
        "probability": 0.83,
        "established": True,
        "number": 3,
        "count": 9,
        "position_mm": 12.5,
        "pixel_spacing_mm": (0.5, 0.5),
        "orientation": AXIAL,
    }
    return SlicePicture(**{**fields, **changes})  # type: ignore[arg-type]


def pixels(picture: SlicePicture) -> np.ndarray:
    return np.asarray(draw_overlay(picture)).astype(int)


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every text that is drawn."""
    texts: list[str] = []
    draw_text = overlays.ImageDraw.ImageDraw.text

    def record(self: object, xy: object, text: str, *arguments: object, **options: object) -> None:
        texts.append(text)
        draw_text(self, xy, text, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(overlays.ImageDraw.ImageDraw, "text", record)
    return texts


class TestHeat:
    def test_no_heat_leaves_the_slice_as_it_was(self) -> None:
        grey = np.linspace(0, 1, 256, dtype=np.float32).reshape(16, 16)
        painted = heat_over(grey, np.zeros_like(grey))
        assert np.array_equal(painted, np.repeat(np.round(grey * 255).astype(np.uint8)[..., None], 3, axis=-1))

    def test_colours_grow_lighter_and_denser_with_heat(self) -> None:
        values = np.linspace(0, 1, 101, dtype=np.float32)
        luminance = heat_colours(values) @ np.array([0.2126, 0.7152, 0.0722])
        assert (np.diff(luminance) > 0).all()
        assert (np.diff(heat_opacity(values)) >= 0).all()
        assert heat_opacity(values).max() <= 0.8


class TestMarks:
    @pytest.mark.parametrize(
        ("orientation", "letters"),
        [
            (AXIAL, ("R", "L")),
            ((-1.0, 0.0, 0.0, 0.0, 1.0, 0.0), ("L", "R")),
            ((0.0, 1.0, 0.0, 0.0, 0.0, -1.0), None),  # sagittal: the edges are front and back
            (None, None),
        ],
    )
    def test_sides_follow_the_orientation(
        self, orientation: tuple[float, ...] | None, letters: tuple[str, str] | None
    ) -> None:
        assert side_letters(orientation) == letters

    def test_sides_are_drawn_only_where_they_are_known(self, written: list[str]) -> None:
        draw_overlay(make_picture())
        assert written.count("R") == written.count("L") == 4
        written.clear()
        draw_overlay(make_picture(orientation=None))
        assert "R" not in written
        assert "L" not in written

    def test_length_and_position_are_drawn_only_where_they_are_known(self, written: list[str]) -> None:
        draw_overlay(make_picture())
        assert "50 mm" in written
        assert "Slice 3 of 9 at 12.5 mm" in written
        written.clear()
        draw_overlay(make_picture(pixel_spacing_mm=None, position_mm=None))
        assert not [text for text in written if "mm" in text]
        assert "Slice 3 of 9" in written

    @pytest.mark.parametrize("label", LABELS)
    def test_label_probability_scale_and_caution_are_drawn(self, written: list[str], label: Hemorrhage) -> None:
        draw_overlay(make_picture(label=label))
        assert f"{label.display}: probability 0.83 on this slice" in written
        assert {"0.00", "0.25", "0.50", "0.75", "1.00"} <= set(written)
        assert any("Research use only. Not a medical device" in text for text in written)

    def test_a_label_that_is_not_established_is_drawn_as_such(self, written: list[str]) -> None:
        draw_overlay(make_picture(established=False))
        assert any("not established" in text for text in written)


class TestSheet:
    def test_heat_is_painted_on_the_last_panel_alone(self) -> None:
        with_heat = make_picture()
        without = replace(with_heat, heat=HeatMap(values=np.zeros((8, 8), dtype=np.float32), box=with_heat.heat.box))
        changed = np.nonzero((pixels(with_heat) != pixels(without)).any(axis=(0, 2)))[0]
        assert changed.min() > 3 * 400
        assert changed.max() < 4 * 410

    def test_pixels_that_are_not_square_keep_their_true_shape(self) -> None:
        sheet = pixels(make_picture(pixel_spacing_mm=(0.5, 0.25), orientation=None))
        head = (sheet[74:474, 6:406] > 60).any(axis=-1)
        rows, columns = np.nonzero(head[:360].any(axis=1))[0], np.nonzero(head[:360].any(axis=0))[0]
        assert np.ptp(rows) / np.ptp(columns) == pytest.approx(2.0, rel=0.05)

    def test_the_input_is_left_unchanged(self) -> None:
        picture = make_picture()
        before = picture.hounsfield.copy(), picture.heat.values.copy()
        assert isinstance(draw_overlay(picture), Image.Image)
        assert np.array_equal(picture.hounsfield, before[0])
        assert np.array_equal(picture.heat.values, before[1])
