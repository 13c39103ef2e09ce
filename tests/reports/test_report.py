"""When positions may be shown, and how hostile text is shown."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from hemoscope.reports.report import positions_known, printable

from .conftest import make_slice, make_study


def test_positions_are_known_unless_the_geometry_is_assumed() -> None:
    study = make_study()
    assert positions_known(study)
    assumed = replace(study.quality[0], code="geometry_assumed")
    assert not positions_known(replace(study, quality=(assumed,)))
    assert not positions_known(make_study(slices=(make_slice(0), make_slice(1, quality=(assumed,)))))


@given(st.text())
def test_printable_text_is_printable_and_safe_text_is_left_alone(text: str) -> None:
    assert printable(text).isprintable()
    assert not text.isprintable() or printable(text) == text
