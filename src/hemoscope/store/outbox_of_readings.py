"""How the outbox follows the readings of a study: what one adds, takes over from an earlier one, and leaves behind."""

from datetime import timedelta

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from hemoscope.store import readings, tables
from hemoscope.store.database import server_time
from hemoscope.store.outbox import FIELDS, WAITING, Delivery, Outgoing, unseen

_outbox, _studies = tables.outbox, tables.studies


def insert(connection: Connection, study_id: str, outgoing: Outgoing) -> None:
    """Queue what a reading sends, in the transaction that stores its result.

    It takes the place of what earlier readings of the study have queued and no destination has seen. An object that is
    there already stays, as a result of this reading; one that was given up is queued again. Of a reading that ended
    after a later one only notifications are sent.
    """
    now, objects = server_time(connection), outgoing.objects
    if readings.is_superseded(connection, study_id):
        objects = tuple(one for one in objects if not one.study_instance_uid)
    elif outgoing.study_instance_uid:
        earlier = unseen(outgoing.study_instance_uid), _outbox.c.study_id != study_id
        connection.execute(_outbox.delete().where(*earlier))
        _take_over(connection, study_id, outgoing)
    for one in objects:
        there = _outbox.c.destination == one.destination, _outbox.c.sop_instance_uid == one.sop_instance_uid
        row = connection.execute(sa.select(_outbox).where(*there)).first()
        held = timedelta(0) if one.study_instance_uid == "" else outgoing.held
        values = {field: getattr(one, field) for field in FIELDS} | {"study_id": study_id}
        values |= {"state": Delivery.QUEUED, "attempts": 0, "error": "", "created_at": now, "next_at": now + held}
        if row is None:
            connection.execute(_outbox.insert().values(**values))
        elif row.state == Delivery.EXPIRED:
            connection.execute(_outbox.update().where(*there).values(**values))


def _take_over(connection: Connection, study_id: str, outgoing: Outgoing) -> None:
    """Make what an earlier reading has sent, and this one says too, results of this one.

    They are then shown with it, and stay if somebody deletes the earlier one.
    """
    same = _outbox.c.study_instance_uid == outgoing.study_instance_uid, _outbox.c.content_uid.in_(outgoing.contents)
    said = connection.execute(sa.select(_outbox.c.study_id).where(*same)).scalars().all()
    theirs = _outbox.c.study_id.in_(said), _outbox.c.study_instance_uid == outgoing.study_instance_uid
    connection.execute(_outbox.update().where(*theirs).values(study_id=study_id))


def remove(connection: Connection, study_id: str, study_instance_uid: str | None, reading: int) -> None:
    """Remove what waits of a study that somebody deletes, except for what an earlier reading, which stays, said too."""
    first = sa.select(sa.func.min(_studies.c.study_id)).where(
        _studies.c.study_instance_uid == study_instance_uid, _studies.c.reading == _outbox.c.reading
    )
    back, of_study = first.scalar_subquery(), _outbox.c.study_id == study_id
    said_before = of_study, _outbox.c.reading < reading, back.is_not(None)
    connection.execute(_outbox.update().where(*said_before).values(study_id=back))
    connection.execute(_outbox.delete().where(of_study, _outbox.c.state.in_(WAITING)))
