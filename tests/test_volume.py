"""The affine of a volume: every voxel at its place in RAS, and no affine where there is no single one."""

from dataclasses import replace

import numpy as np
import pytest

from hemoscope.errors import GeometryError
from hemoscope.volume import HounsfieldVolume

ORIGINS = tuple((10.0, 20.0, -30.0 + 5.0 * index) for index in range(4))


def make_volume(**changes: object) -> HounsfieldVolume:
    fields: dict[str, object] = {
        "hounsfield": np.zeros((4, 3, 2), dtype=np.int16),
        "spacing_mm": (5.0, 0.5, 0.25),
        "positions_mm": tuple(z for _, _, z in ORIGINS),
        "orientation": (1.0, 0.0, 0.0, 0.0, 1.0, 0.0),
        "origins_mm": ORIGINS,
    }
    return HounsfieldVolume(**{**fields, **changes})  # type: ignore[arg-type]


def place(volume: HounsfieldVolume, column: int, row: int, index: int) -> list[float]:
    return list((volume.affine @ [column, row, index, 1.0])[:3].round(6))


def test_an_axial_volume_has_its_places_in_ras() -> None:
    volume = make_volume()
    assert place(volume, 0, 0, 0) == [-10.0, -20.0, -30.0]
    assert place(volume, 4, 0, 0) == [-11.0, -20.0, -30.0]  # to the patient's left, by the spacing between columns
    assert place(volume, 0, 4, 0) == [-10.0, -22.0, -30.0]  # to the back, by the spacing between rows
    assert place(volume, 0, 0, 3) == [-10.0, -20.0, -15.0]  # to the head


def test_a_gantry_tilt_shears_it() -> None:
    volume = make_volume(orientation=(1.0, 0.0, 0.0, 0.0, np.cos(0.3), -np.sin(0.3)))
    assert place(volume, 0, 0, 2) == [-10.0, -20.0, -20.0]
    np.testing.assert_allclose(volume.affine[:3, 1], [0.0, -0.5 * np.cos(0.3), -0.5 * np.sin(0.3)])


def test_cosines_of_another_length_do_not_stretch_it() -> None:
    volume = make_volume(orientation=(1.001, 0.0, 0.0, 0.0, 0.999, 0.0))
    np.testing.assert_allclose(volume.affine, make_volume().affine)


def test_rounded_positions_are_forgiven_and_uneven_ones_are_not() -> None:
    (x, y, z), rest = ORIGINS[1], ORIGINS[2:]
    rounded = make_volume(origins_mm=(ORIGINS[0], (x, y, z + 0.3), *rest))
    np.testing.assert_allclose(rounded.affine, make_volume().affine)
    with pytest.raises(GeometryError, match=r"one lies 1\.0 mm from its place"):
        _ = make_volume(origins_mm=(ORIGINS[0], (x, y, z + 1.0), *rest)).affine


@pytest.mark.parametrize(
    "changes", [{"origins_mm": None}, {"orientation": None}, {"spacing_mm": (5.0, None, None)}], ids=str
)
def test_without_geometry_there_is_none(changes: dict[str, object]) -> None:
    with pytest.raises(GeometryError, match="position, orientation or pixel spacing are unknown"):
        _ = make_volume(**changes).affine


def test_one_slice_alone_has_none() -> None:
    one = replace(
        make_volume(),
        hounsfield=np.zeros((1, 3, 2), dtype=np.int16),
        positions_mm=(0.0,),
        origins_mm=ORIGINS[:1],
    )
    with pytest.raises(GeometryError, match="no slice spacing"):
        _ = one.affine


def test_every_slice_has_an_origin_or_none_has() -> None:
    with pytest.raises(ValueError, match="3 origins for 4 slices"):
        make_volume(origins_mm=ORIGINS[:3])
