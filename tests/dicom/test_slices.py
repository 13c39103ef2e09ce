"""What names a slice is checked when it is made."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hemoscope.dicom.slices import SliceRef


@pytest.mark.parametrize(("index", "frame"), [(-1, 0), (0, -1)])
def test_a_place_that_no_slice_has_is_refused(index: int, frame: int) -> None:
    with pytest.raises(ValueError, match=f"count from 0, got {index} and {frame}"):
        SliceRef(index=index, sop_instance_uid="1.2.3", frame=frame)


@given(st.integers(0, 10_000))
def test_people_number_slices_from_1(index: int) -> None:
    assert SliceRef(index=index, sop_instance_uid="1.2.3", frame=0).number == index + 1
