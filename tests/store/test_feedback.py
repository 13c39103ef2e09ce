"""Feedback of readers is stored, counted, and exported as a table of labels for training."""

import io
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pydicom
import pytest

from hemoscope.cli import main
from hemoscope.data.label_table import read_table_labels
from hemoscope.errors import StoreError
from hemoscope.labels import LABELS, Hemorrhage
from hemoscope.store.store import Store
from hemoscope.store.values import StudyDetail, StudySummary, Verdict

Submit = Callable[..., StudySummary]
Known = dict[str, tuple[int | None, ...]]


@pytest.fixture
def study(store: Store, submit: Submit, work: Callable[..., int], series: list[bytes]) -> StudyDetail:
    entry = submit(store, series)
    work(store)
    return store.get(entry.study_id)


def images(study: StudyDetail) -> list[str]:
    assert study.geometry is not None
    return list(study.geometry["sop_instance_uids"])


def table(store: Store, folder: Path) -> Known:
    path = folder / "feedback.csv"
    path.write_text(store.export_feedback())
    return {image_id: row.labels for image_id, row in read_table_labels(path).items()}


def labels(**known: int) -> tuple[int | None, ...]:
    return tuple(known.get(label.value) for label in LABELS)


def test_feedback_is_kept_with_who_and_when(store: Store, study: StudyDetail) -> None:
    before = store.counts().version
    given = store.add_feedback(
        study.study_id,
        label=Hemorrhage.SUBDURAL,
        verdict=Verdict.CORRECTED,
        present=True,
        slices=(3, 1, 3),
        note="left, thin\x00",
        by="anna",
    )
    assert store.feedback(study.study_id) == (given,)
    assert (given.by, given.slices, given.note) == ("anna", (1, 3), "left, thin\ufffd")
    assert store.get(study.study_id).feedback == {"corrected": 1}
    assert store.get(study.study_id).verdicts == {given.label.value: "corrected"}
    assert store.studies()[0][0].feedback == {"corrected": 1}
    assert [one.study_id for one in store.changes_since(before).studies] == [study.study_id]


@pytest.mark.parametrize(
    ("slices", "note", "words"),
    [((5,), "", "slice 5 of a study of 5"), ((-1,), "", "slice -1"), (None, "x" * 2001, "2001 characters")],
)
def test_feedback_that_cannot_be_meant_is_refused(
    store: Store, study: StudyDetail, slices: tuple[int, ...] | None, note: str, words: str
) -> None:
    with pytest.raises(StoreError, match=words) as refused:
        store.add_feedback(
            study.study_id,
            label=Hemorrhage.ANY,
            verdict=Verdict.AGREE,
            present=True,
            slices=slices,
            note=note,
            by="anna",
        )
    assert refused.value.code == "bad_feedback"
    assert store.feedback(study.study_id) == ()


def test_an_absent_type_is_absent_in_every_slice(store: Store, study: StudyDetail, tmp_path: Path) -> None:
    store.add_feedback(study.study_id, label=Hemorrhage.EPIDURAL, verdict=Verdict.AGREE, present=False, by="anna")
    assert table(store, tmp_path) == dict.fromkeys(images(study), labels(epidural=0))


def test_no_bleed_at_all_means_no_type_either(store: Store, study: StudyDetail, tmp_path: Path) -> None:
    store.add_feedback(study.study_id, label=Hemorrhage.ANY, verdict=Verdict.CORRECTED, present=False, by="anna")
    assert table(store, tmp_path) == dict.fromkeys(images(study), (0,) * 6)


def test_a_present_type_is_known_only_for_the_slices_given(store: Store, study: StudyDetail, tmp_path: Path) -> None:
    store.add_feedback(
        study.study_id, label=Hemorrhage.SUBDURAL, verdict=Verdict.CORRECTED, present=True, slices=(1, 2), by="anna"
    )
    seen = labels(any=1, subdural=1)
    assert table(store, tmp_path) == {images(study)[1]: seen, images(study)[2]: seen}


def test_a_present_type_without_slices_says_nothing_of_any_slice(store: Store, study: StudyDetail) -> None:
    store.add_feedback(study.study_id, label=Hemorrhage.SUBDURAL, verdict=Verdict.AGREE, present=True, by="anna")
    assert store.export_feedback() == f"image_id,{','.join(LABELS)}\n"


def test_newer_feedback_counts_over_older(store: Store, study: StudyDetail, tmp_path: Path) -> None:
    store.add_feedback(study.study_id, label=Hemorrhage.ANY, verdict=Verdict.AGREE, present=False, by="anna")
    store.add_feedback(
        study.study_id, label=Hemorrhage.SUBDURAL, verdict=Verdict.CORRECTED, present=True, slices=(4,), by="bert"
    )
    known = table(store, tmp_path)
    assert known[images(study)[4]] == (1, 0, 0, 0, 0, 1)
    assert known[images(study)[0]] == (0,) * 6


def test_a_withdrawn_type_leaves_no_bleed_behind(store: Store, study: StudyDetail, tmp_path: Path) -> None:
    for present, slices in ((True, (2,)), (False, None)):
        store.add_feedback(
            study.study_id,
            label=Hemorrhage.EPIDURAL,
            verdict=Verdict.CORRECTED,
            present=present,
            slices=slices,
            by="anna",
        )
    assert table(store, tmp_path) == dict.fromkeys(images(study), labels(epidural=0))


@pytest.mark.parametrize(
    ("said", "first", "fifth"),
    [
        # label, present, slices; what is known of the first and of the fifth slice then
        ([("subdural", False, None), ("subdural", True, None)], None, None),
        ([("any", False, None), ("any", True, None)], None, None),
        ([("any", False, None), ("any", True, (4,))], (0,) * 6, labels(any=1)),
        ([("any", False, None), ("subdural", True, None)], (None, 0, 0, 0, 0, None), (None, 0, 0, 0, 0, None)),
        ([("epidural", False, None), ("any", False, None), ("any", True, (4,))], (0,) * 6, labels(any=1)),
        ([("any", True, (4,)), ("any", False, None)], (0,) * 6, (0,) * 6),
        ([("subdural", True, (4,)), ("subdural", True, None)], None, labels(any=1, subdural=1)),
    ],
)
def test_what_newer_feedback_takes_back_is_no_longer_known(
    store: Store,
    study: StudyDetail,
    tmp_path: Path,
    said: list[tuple[str, bool, tuple[int, ...] | None]],
    first: tuple[int | None, ...] | None,
    fifth: tuple[int | None, ...] | None,
) -> None:
    for label, present, slices in said:
        store.add_feedback(
            study.study_id,
            label=Hemorrhage(label),
            verdict=Verdict.CORRECTED,
            present=present,
            slices=slices,
            by="anna",
        )
    if first is fifth is None:
        assert store.export_feedback() == f"image_id,{','.join(LABELS)}\n"
    else:
        known = table(store, tmp_path)
        assert (known.get(images(study)[0]), known.get(images(study)[4])) == (first, fifth)


def test_a_study_of_one_slice_needs_no_slice_given(
    store: Store, submit: Submit, work: Callable[..., int], series: list[bytes], tmp_path: Path
) -> None:
    entry = submit(store, series[2:3])
    work(store)
    store.add_feedback(entry.study_id, label=Hemorrhage.ANY, verdict=Verdict.AGREE, present=True, by="anna")
    assert list(table(store, tmp_path).values()) == [labels(any=1)]


@pytest.mark.filterwarnings("ignore:Invalid value for VR UI:UserWarning")
def test_no_uid_becomes_a_formula(store: Store, submit: Submit, work: Callable[..., int], series: list[bytes]) -> None:
    image, hostile = pydicom.dcmread(io.BytesIO(series[2])), io.BytesIO()
    image.SOPInstanceUID = "=1+1"
    image.save_as(hostile)
    entry = submit(store, [hostile.getvalue()])
    work(store)
    store.add_feedback(entry.study_id, label=Hemorrhage.ANY, verdict=Verdict.AGREE, present=True, by="anna")
    assert store.export_feedback().splitlines()[1].startswith("'=1+1,")


def test_nothing_known_is_a_table_of_no_rows(store: Store) -> None:
    assert store.export_feedback() == f"image_id,{','.join(LABELS)}\n"


def test_prepare_table_reads_the_export_beside_files_named_by_their_uid(
    store: Store, study: StudyDetail, series: list[bytes], tmp_path: Path
) -> None:
    store.add_feedback(
        study.study_id, label=Hemorrhage.SUBDURAL, verdict=Verdict.CORRECTED, present=True, slices=(1,), by="anna"
    )
    store.add_feedback(study.study_id, label=Hemorrhage.EPIDURAL, verdict=Verdict.AGREE, present=False, by="anna")
    (tmp_path / "images").mkdir()
    for content in series:
        uid = pydicom.dcmread(io.BytesIO(content), stop_before_pixels=True).SOPInstanceUID
        (tmp_path / "images" / f"{uid}.dcm").write_bytes(content)
    (tmp_path / "feedback.csv").write_text(store.export_feedback())
    options = {"--images": "images", "--labels": "feedback.csv", "--output": "cache"}
    words = [word for option, name in options.items() for word in (option, str(tmp_path / name))]
    assert main(["prepare", "table", *words, "--name", "feedback", "--license", "none", "--workers", "1"]) == 0
    table = pd.read_parquet(tmp_path / "cache" / "manifest.parquet").set_index("image_id")
    assert set(table.index) == set(images(study))
    assert table["epidural"].tolist() == [0] * len(series)
    assert table["subdural"].dropna().to_dict() == table["any"].dropna().to_dict() == {images(study)[1]: 1}


def test_what_a_reader_takes_back_was_never_said(store: Store, study: StudyDetail, tmp_path: Path) -> None:
    def say(label: Hemorrhage, verdict: Verdict, *, present: bool) -> None:
        store.add_feedback(study.study_id, label=label, verdict=verdict, present=present, by="anna")

    say(Hemorrhage.EPIDURAL, Verdict.AGREE, present=False)
    say(Hemorrhage.ANY, Verdict.CORRECTED, present=False)
    say(Hemorrhage.ANY, Verdict.WITHDRAWN, present=True)
    assert table(store, tmp_path) == dict.fromkeys(images(study), labels(epidural=0))
    assert store.get(study.study_id).feedback == {"agree": 1}
    say(Hemorrhage.EPIDURAL, Verdict.WITHDRAWN, present=False)
    assert store.get(study.study_id).feedback == {}
    assert len(store.feedback(study.study_id)) == 4, "what was said stays on record"


def test_a_label_counts_by_its_newest_verdict(store: Store, study: StudyDetail) -> None:
    for verdict, present in ((Verdict.AGREE, True), (Verdict.CORRECTED, False), (Verdict.AGREE, True)):
        store.add_feedback(study.study_id, label=Hemorrhage.ANY, verdict=verdict, present=present, by="anna")
    assert store.get(study.study_id).feedback == {"agree": 1}
