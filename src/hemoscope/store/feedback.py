"""Readers' feedback on findings, and its export as a table of labels for training."""

import csv
import io
import json
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from hemoscope.files import inert_text
from hemoscope.labels import LABELS, SUBTYPES, Hemorrhage
from hemoscope.store import audit, tables
from hemoscope.store.database import Database, server_time, storable
from hemoscope.store.refusals import refusal
from hemoscope.store.study_row import find_study
from hemoscope.store.values import Feedback, Verdict

_NOTE_CHARACTERS = 2000
_feedback, _studies = tables.feedback, tables.studies


def add_feedback(
    database: Database,
    study_id: str,
    *,
    label: Hemorrhage,
    verdict: Verdict,
    present: bool,
    slices: Sequence[int] | None,
    note: str,
    by: str,
) -> Feedback:
    """Store one entry; its id and time are set here. Raises StoreError ``no_such_study`` or ``bad_feedback``."""
    if len(note) > _NOTE_CHARACTERS:
        raise refusal("bad_feedback", f"the note has {len(note)} characters, the most are {_NOTE_CHARACTERS}")
    with database.writing() as connection:
        version = tables.tick(connection)
        study = find_study(connection, study_id)
        outside = [index for index in slices or () if not 0 <= index < study.instances]
        if outside:
            raise refusal("bad_feedback", f"slice {outside[0]} of a study of {study.instances}")
        values = {
            "study_id": study_id,
            "at": server_time(connection),
            "by_user": storable(by),
            "label": label.value,
            "verdict": verdict.value,
            "present": present,
            "slices": None if slices is None else json.dumps(sorted(set(slices))),
            "note": storable(note),
        }
        row = connection.execute(_feedback.insert().values(**values).returning(*_feedback.c)).one()
        connection.execute(_studies.update().where(_studies.c.study_id == study_id).values(version=version))
        # Without the note, which is free text: a deletion removes the note, the audit stays.
        detail = f"{label.value}: {verdict.value}"
        audit.append(connection, user=by, action="feedback", study_id=study_id, detail=detail)
    return _entry(row)


def feedback_of(database: Database, study_id: str) -> tuple[Feedback, ...]:
    """Return all feedback of a study, oldest first. Raises StoreError ``no_such_study``."""
    with database.reading() as connection:
        find_study(connection, study_id)
        rows = connection.execute(_in_order().where(_feedback.c.study_id == study_id)).all()
    return tuple(_entry(row) for row in rows)


def export_feedback(database: Database) -> str:
    """Return the labels of single slices as CSV, in the format that ``hemoscope prepare table`` reads.

    A label that a reader marks as absent is absent in every slice (``any``: all labels are). One that is present is
    present in the slices given, and in a study of one slice; its other slices are unknown. Newer feedback replaces
    older: labels that it leaves in doubt become unknown. What a reader took back (``withdrawn``) is as if it had not
    been said. A slice with a type has ``any`` too. A file of several frames is one image, whose labels are those of
    any of its frames.
    """
    with database.reading() as connection:
        rows = connection.execute(_in_order()).all()
        wanted = sa.select(_studies.c.study_id, _studies.c.geometry).where(_studies.c.geometry.is_not(None))
        given = wanted.where(_studies.c.study_id.in_({row.study_id for row in rows}))
        images = {row.study_id: _images(row.geometry) for row in connection.execute(given)}
    known: dict[str, _Image] = {}
    for entry in _standing([_entry(row) for row in rows]):
        _apply(entry, [known.setdefault(image_id, _Image()) for image_id in images.get(entry.study_id, [])])
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["image_id", *LABELS])
    writer.writerows([inert_text(image_id), *image.row()] for image_id, image in known.items() if image.values)
    return text.getvalue()


def _images(geometry: str) -> list[str]:
    return [str(uid) for uid in json.loads(geometry)["sop_instance_uids"]]


def _standing(entries: Sequence[Feedback]) -> list[Feedback]:
    """Return the entries, oldest first, that no reader took back: a withdrawal voids the earlier ones on its label."""
    withdrawn = {
        (entry.study_id, entry.label): entry.feedback_id for entry in entries if entry.verdict is Verdict.WITHDRAWN
    }
    return [entry for entry in entries if entry.feedback_id > withdrawn.get((entry.study_id, entry.label), -1)]


class _Image:
    """Labels of one image, 0 or 1; ``implied`` are types absent because no bleed at all was seen."""

    def __init__(self) -> None:
        self.values: dict[Hemorrhage, int] = {}
        self._implied: set[Hemorrhage] = set()

    def absent(self, label: Hemorrhage) -> None:
        """Mark the label as absent in every slice."""
        if label is Hemorrhage.ANY:
            self.values = dict.fromkeys(LABELS, 0)
            self._implied = set(SUBTYPES)
        else:
            self.values[label] = 0
            self._implied.discard(label)

    def doubtful(self, label: Hemorrhage) -> None:
        """Mark the label as unknown here: it is somewhere in the study, so earlier "absent" is void."""
        implied = self._implied if label is Hemorrhage.ANY else self._implied & {label}
        for one in {Hemorrhage.ANY, label, *implied}:
            if self.values.get(one) == 0:
                del self.values[one]
        self._implied -= implied

    def present(self, label: Hemorrhage) -> None:
        """Mark the label as present in this image."""
        self.doubtful(label)
        self.values[label] = 1

    def row(self) -> list[int | str]:
        """Labels in order; a type that is present makes ``any`` present."""
        typed = any(self.values.get(label) for label in SUBTYPES)
        return [1 if typed and label is Hemorrhage.ANY else self.values.get(label, "") for label in LABELS]


def _apply(entry: Feedback, images: list[_Image]) -> None:
    """Apply one entry to its images."""
    if not entry.present:
        for image in images:
            image.absent(entry.label)
        return
    slices = entry.slices if entry.slices is not None else (0,) if len(images) == 1 else ()
    if slices:
        for index in slices:
            if index < len(images):
                images[index].present(entry.label)
    else:
        for image in images:
            image.doubtful(entry.label)


def _in_order() -> Any:
    return sa.select(_feedback).order_by(_feedback.c.feedback_id)


def _entry(row: Any) -> Feedback:
    return Feedback(
        feedback_id=row.feedback_id,
        study_id=row.study_id,
        at=row.at,
        by=row.by_user,
        label=Hemorrhage(row.label),
        verdict=Verdict(row.verdict),
        present=row.present,
        slices=None if row.slices is None else tuple(json.loads(row.slices)),
        note=row.note,
    )
