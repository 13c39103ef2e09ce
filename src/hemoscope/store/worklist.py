"""Queries: the worklist, one study, changes, and the numbers for readiness and metrics."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from datetime import timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from hemoscope.labels import LABELS
from hemoscope.store import reader_marks, readings, tables
from hemoscope.store.database import Database, server_time, storable
from hemoscope.store.deliveries import deliveries_of
from hemoscope.store.kept_series import numbers_of_series, series_of
from hemoscope.store.refusals import refusal
from hemoscope.store.study_row import find_study
from hemoscope.store.values import (
    Changes,
    Claim,
    Counts,
    Deletion,
    Identity,
    Review,
    StudyDetail,
    StudyState,
    StudySummary,
    Verdict,
    WorkerHeartbeat,
    WorklistQuery,
    WorklistSort,
)

_MOST_CHANGES = 1000
_UNKNOWN = "unknown"  # asks for studies without a result, and those that could not be read
_studies, _feedback, _jobs, _workers = tables.studies, tables.feedback, tables.jobs, tables.workers
_NAMELESS = (_studies.c.study_id, _studies.c.urgency, _studies.c.suspected, _studies.c.error_code)
_MARKS = {"feedback", "verdicts", "readers", "claim", "reviews", "initials"}
_COMPOSED = {"suspected", "not_established", "identity", "same_as", "kept_series", *_MARKS}
_LISTED = [column for column in _studies.c if column.name != "geometry"]
_REVIEWED = sa.exists().where(tables.reviews.c.study_id == _studies.c.study_id)
# Most urgent first; what could not be read and what has not been read yet come before routine studies. Then what nobody
# has reviewed, then the longest waiting; the id only makes the order total.
_ORDER = (_studies.c.urgency_rank, sa.case((_REVIEWED, 1), else_=0), _studies.c.received_at, _studies.c.study_id)

_SORTED_BY: dict[str, sa.ColumnElement[Any]] = {
    "scan": _studies.c.acquired_at,
    "waiting": _studies.c.received_at,
    "slices": _studies.c.instances,
}


def list_studies(database: Database, query: WorklistQuery) -> tuple[tuple[StudySummary, ...], int]:
    """Return one page of the worklist and the number of all studies that match; of several readings, the newest."""
    wanted, order = _conditions(query), _order(query, is_sqlite=database.is_sqlite)
    page = sa.select(*_LISTED).where(*wanted).order_by(*order).limit(query.limit).offset(query.offset)
    with database.reading() as connection:
        total = connection.execute(sa.select(sa.func.count()).select_from(_studies).where(*wanted)).scalar_one()
        return _summaries(connection, connection.execute(page).all()), int(total)


def get_summary(database: Database, study_id: str) -> StudySummary:
    """Return a study as the worklist shows it. Raises StoreError ``no_such_study``."""
    with database.reading() as connection:
        return _summaries(connection, [find_study(connection, study_id)])[0]


def get_study(database: Database, study_id: str) -> StudyDetail:
    """Return a study with findings and geometry. Raises StoreError ``no_such_study``."""
    with database.reading() as connection:
        row = find_study(connection, study_id)
        text = connection.execute(_result(study_id)).scalar()
        [fields] = _fields(connection, [row])
        earlier = readings.earlier(connection, study_id)
        deliveries = deliveries_of(connection, study_id)
        series = series_of(connection, study_id)
    geometry = json.loads(row.geometry) if row.geometry else None
    findings = json.loads(text) if text else None
    return StudyDetail(
        **fields, findings=findings, geometry=geometry, earlier=earlier, series=series, deliveries=deliveries
    )


def findings_text(database: Database, study_id: str) -> str:
    """Return the stored findings document. Raises StoreError ``no_such_study`` or ``no_findings``."""
    with database.reading() as connection:
        find_study(connection, study_id)
        text = connection.execute(_result(study_id)).scalar()
    if text is None:
        raise refusal("no_findings", "the study has no result yet")
    return str(text)


def report_state(database: Database, study_id: str) -> str:
    """Return a text that changes with everything that a report on a study shows. Raises StoreError ``no_such_study``.

    A claim changes the study's version, and nothing in its report.
    """
    shown = (
        (tables.results, tables.results.c.finished_at),
        (_feedback, _feedback.c.feedback_id),
        (tables.measurements, tables.measurements.c.measurement_id),
        (tables.measurements, tables.measurements.c.at),  # SQLite gives the id of the newest again once it is deleted
        (tables.reviews, tables.reviews.c.at),
    )
    with database.reading() as connection:
        row = find_study(connection, study_id)
        parts: list[Any] = [row.patient_name, row.patient_id]
        for table, newest in shown:
            asked = sa.select(sa.func.count(), sa.func.max(newest)).where(table.c.study_id == study_id)
            parts += connection.execute(asked).one()
    return repr(parts)


def changes_since(database: Database, version: int) -> Changes:
    """Return what changed after a version, at most a thousand of each; ask again from the version returned."""
    with database.reading() as connection:
        current = int(connection.execute(sa.select(tables.clock.c.version)).scalar_one())
        if version >= current:
            return Changes(version=current)
        newer = sa.select(*_LISTED).where(_studies.c.version > version).order_by(_studies.c.version)
        gone = sa.select(tables.deletions).where(tables.deletions.c.version > version)
        rows = connection.execute(newer.limit(_MOST_CHANGES)).all()
        lost = connection.execute(gone.order_by(tables.deletions.c.version).limit(_MOST_CHANGES)).all()
        reached = min([current, *(found[-1].version for found in (rows, lost) if len(found) == _MOST_CHANGES)])
        return Changes(
            version=reached,
            studies=_summaries(connection, [row for row in rows if row.version <= reached]),
            deleted=tuple(
                Deletion(study_id=row.study_id, version=row.version) for row in lost if row.version <= reached
            ),
        )


def count_all(database: Database, *, alive_within: timedelta) -> Counts:
    """Return the numbers for readiness and metrics."""
    with database.reading() as connection:
        states = dict(_pairs(connection, sa.select(_studies.c.state, sa.func.count()).group_by(_studies.c.state)))
        job_states = dict(_pairs(connection, sa.select(_jobs.c.state, sa.func.count()).group_by(_jobs.c.state)))
        totals = dict(_pairs(connection, sa.select(tables.totals.c.name, tables.totals.c.count)))
        given = dict(_pairs(connection, sa.select(_feedback.c.verdict, sa.func.count()).group_by(_feedback.c.verdict)))
        oldest = connection.execute(sa.select(sa.func.min(_jobs.c.queued_at)).where(_jobs.c.state == "queued")).scalar()
        moment = server_time(connection)
        # A heartbeat from the future was written before the clock was set back: it proves nothing.
        fresh = _workers.c.beat_at.between(moment - alive_within, moment + alive_within)
        beating = sa.select(_workers).where(fresh).order_by(_workers.c.started_at)
        alive = connection.execute(beating).mappings().all()
        version = connection.execute(sa.select(tables.clock.c.version)).scalar_one()
    return Counts(
        queue_depth=job_states.get("queued", 0),
        running=job_states.get("running", 0),
        oldest_waiting_s=None if oldest is None else max(0.0, (moment - oldest).total_seconds()),
        studies={state: states.get(state.value, 0) for state in StudyState},
        workers=tuple(WorkerHeartbeat(**row) for row in alive),
        feedback={verdict: given.get(verdict, 0) + totals.get(f"feedback:{verdict}", 0) for verdict in Verdict},
        deleted=totals.get("deleted", 0),
        version=int(version),
    )


def _pairs(connection: Connection, query: Any) -> Iterable[tuple[str, int]]:
    return ((row[0], int(row[1])) for row in connection.execute(query))


def _result(study_id: str) -> Any:
    return sa.select(tables.results.c.findings).where(tables.results.c.study_id == study_id)


def _conditions(query: WorklistQuery) -> list[sa.ColumnElement[bool]]:
    """SQL conditions of a query; search words are plain text, wildcards in them are escaped."""
    words = storable(query.search).casefold().split()
    # Names may be stored from a time when the site showed them: nobody may search by what is no longer shown.
    fields = (_studies.c.search_text,) if query.identity else _NAMELESS
    conditions: list[sa.ColumnElement[bool]] = [_studies.c.superseded_by.is_(None)]
    conditions += [
        sa.or_(*(field.contains(spelled, autoescape=True) for field in fields for spelled in _spellings(word)))
        for word in words
    ]
    if query.states:
        conditions.append(_studies.c.state.in_([state.value for state in query.states]))
    if query.urgency:
        known = _studies.c.urgency.in_(query.urgency)
        conditions.append(sa.or_(known, _studies.c.urgency.is_(None)) if _UNKNOWN in query.urgency else known)
    if query.reviewed is not None:
        conditions.append(_REVIEWED if query.reviewed else ~_REVIEWED)
    return conditions


def _order(query: WorklistQuery, *, is_sqlite: bool) -> tuple[sa.ColumnElement[Any], ...]:
    """The columns to sort by, the same on both databases: the page puts changed studies in their place (query.js)."""
    name = query.sort.removeprefix("-")
    if name == WorklistSort.URGENCY:
        return _ORDER
    column = _shown_name(query, is_sqlite=is_sqlite) if name == WorklistSort.STUDY else _SORTED_BY[name]
    # A scan at an unknown time counts as the oldest.
    first = column.asc().nulls_first() if name == query.sort else column.desc().nulls_last()
    return (first, *_ORDER)


def _shown_name(query: WorklistQuery, *, is_sqlite: bool) -> sa.ColumnElement[Any]:
    """What names a study in the list, by code point except that a to z are as A to Z: locales would differ."""
    name = sa.func.coalesce(sa.func.nullif(_studies.c.patient_name, ""), _studies.c.study_id)
    return sa.func.upper(sa.collate(name if query.identity else _studies.c.study_id, "BINARY" if is_sqlite else "C"))


def _spellings(word: str) -> set[str]:
    """Return the word, and for an abbreviation such as "sdh" the label too."""
    return {word, *(label.value for label in LABELS if label.abbreviation.casefold() == word)}


def _verdicts(connection: Connection, study_ids: Sequence[str]) -> dict[str, dict[str, str]]:
    """Return the standing verdict on each label, by study."""
    asked = sa.select(_feedback.c.study_id, _feedback.c.label, _feedback.c.verdict).where(_standing(study_ids))
    verdicts: dict[str, dict[str, str]] = {}
    for study_id, label, verdict in connection.execute(asked):
        verdicts.setdefault(study_id, {})[label] = verdict
    return verdicts


def _readers(connection: Connection, study_ids: Sequence[str]) -> dict[str, tuple[str, ...]]:
    named = sa.select(_feedback.c.study_id, _feedback.c.by_user).where(_standing(study_ids)).distinct()
    readers: dict[str, tuple[str, ...]] = {}
    for row in connection.execute(named.order_by(_feedback.c.by_user)):
        readers[row.study_id] = (*readers.get(row.study_id, ()), row.by_user)
    return readers


def _standing(study_ids: Sequence[str]) -> sa.ColumnElement[bool]:
    """The condition for the newest feedback on each label, unless it was taken back."""
    newest = (
        sa.select(sa.func.max(_feedback.c.feedback_id))
        .where(_feedback.c.study_id.in_(study_ids))
        .group_by(_feedback.c.study_id, _feedback.c.label)
    )
    return sa.and_(_feedback.c.feedback_id.in_(newest), _feedback.c.verdict != Verdict.WITHDRAWN.value)


def _summaries(connection: Connection, rows: Sequence[Any]) -> tuple[StudySummary, ...]:
    return tuple(StudySummary(**fields) for fields in _fields(connection, rows))


def _first_of_equals(connection: Connection, rows: Sequence[Any]) -> dict[str, str]:
    """Return, by digest of the pixels, the study that came first: whatever its headers say."""
    digests = {row.pixels_sha256 for row in rows if row.pixels_sha256}
    if not digests:
        return {}
    same = sa.select(_studies.c.pixels_sha256, _studies.c.study_id).where(_studies.c.pixels_sha256.in_(digests))
    newest_first = same.order_by(_studies.c.received_at.desc(), _studies.c.study_id.desc())
    return {row.pixels_sha256: row.study_id for row in connection.execute(newest_first)}


def _fields(connection: Connection, rows: Sequence[Any]) -> Iterator[dict[str, Any]]:
    """Yield the fields of a summary for each row of ``studies``."""
    ids = [row.study_id for row in rows]
    verdicts, readers, firsts = (
        _verdicts(connection, ids),
        _readers(connection, ids),
        _first_of_equals(connection, rows),
    )
    kept = numbers_of_series(connection, ids)
    claims, reviews = reader_marks.claims(connection, ids), reader_marks.reviews(connection, ids)
    named = {
        study_id: _named(readers.get(study_id, ()), claims.get(study_id), reviews.get(study_id, ())) for study_id in ids
    }
    initials = reader_marks.initials(connection, set().union(*named.values()))
    for row in rows:
        known = row.patient_name is not None or row.patient_id is not None
        first = firsts.get(row.pixels_sha256)
        columns = {name: getattr(row, name) for name in StudySummary.model_fields if name not in _COMPOSED}
        yield columns | {
            "suspected": tuple(json.loads(row.suspected)),
            "not_established": tuple(json.loads(row.not_established)),
            "identity": Identity(name=row.patient_name or "", id=row.patient_id or "") if known else None,
            "feedback": Counter(verdicts.get(row.study_id, {}).values()),
            "verdicts": verdicts.get(row.study_id, {}),
            "readers": readers.get(row.study_id, ()),
            "claim": claims.get(row.study_id),
            "reviews": reviews.get(row.study_id, ()),
            "initials": {name: initials[name] for name in sorted(named[row.study_id])},
            "same_as": None if first == row.study_id else first,
            "kept_series": kept.get(row.study_id, 0),
        }


def _named(readers: Sequence[str], claim: Claim | None, reviews: Sequence[Review]) -> set[str]:
    """The readers whom a study's row names."""
    return {*readers, *(one.by for one in (*reviews, *([claim] if claim else ())))}
