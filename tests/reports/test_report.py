"""Which slices a finding names, and how hostile text is shown."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from hemoscope.labels import Hemorrhage, PerLabel
from hemoscope.reports.report import key_slices, positions_known, printable

from .conftest import make_slice, make_study


def test_key_slices_follow_the_order_of_the_finding() -> None:
    study = make_study()
    finding = replace(study.findings[0], slices=(study.slices[3].sop_instance_uid, study.slices[1].sop_instance_uid))
    assert [key.number for key in key_slices(study, finding)] == [4, 2]


def test_frames_that_share_a_uid_are_told_apart_by_their_probability() -> None:
    likely = [0.1, 0.9, 0.3, 0.6]
    frames = tuple(
        make_slice(index, sop_instance_uid="1.2.3", frame=index, probabilities=PerLabel.of([p] + [0.0] * 5))
        for index, p in enumerate(likely)
    )
    study = make_study(slices=frames)
    finding = replace(study.findings[0], label=Hemorrhage.ANY, slices=("1.2.3", "1.2.3"))
    assert [key.index for key in key_slices(study, finding)] == [1, 3]


def test_positions_are_known_unless_the_geometry_is_assumed() -> None:
    study = make_study()
    assert positions_known(study)
    assumed = replace(study.quality[0], code="geometry_assumed")
    assert not positions_known(replace(study, quality=(assumed,)))


@given(st.text())
def test_printable_text_is_printable_and_safe_text_is_left_alone(text: str) -> None:
    assert printable(text).isprintable()
    assert not text.isprintable() or printable(text) == text
