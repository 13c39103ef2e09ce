"""Old and new databases migrate to the tables of this program, also if several processes start at once."""

import re
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext

from hemoscope.errors import ConfigError, StoreError
from hemoscope.store import tables
from hemoscope.store.database import Database, database_url, now
from hemoscope.store.migrate import migrate
from hemoscope.store.store import Store
from hemoscope.store.uploads import new_study
from hemoscope.store.values import StudySummary, WorklistQuery


def test_migrations_make_the_tables_that_the_program_uses(url: str) -> None:
    database = Database(url)
    migrate(database)
    with database.reading() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, tables.metadata) == []
    database.close()


def test_migrating_twice_changes_nothing(url: str) -> None:
    database = Database(url)
    migrate(database)
    with database.writing() as connection:
        assert tables.tick(connection) == 1
    migrate(database)
    with database.writing() as connection:
        assert tables.tick(connection) == 2
    database.close()


def test_an_older_database_keeps_its_rows(url: str, tmp_path: Path, opened: Callable[..., Store]) -> None:
    old = Database(url)
    migrate(old, revision="0001")
    with old.writing() as connection:
        connection.execute(tables.settings.insert().values(name="prevalence", value="0.15"))
        assert not sa.inspect(connection).has_table("deletions")
    old.close()
    assert opened().settings() == {"prevalence": 0.15}


def test_studies_of_an_older_database_keep_their_order_and_leave_room_for_unsure(
    url: str, opened: Callable[..., Store], tmp_path: Path
) -> None:
    known: list[tuple[str | None, int]] = [(None, 3), ("routine", 2), ("immediate", 0), ("prompt", 1)]
    old = Database(url)
    migrate(old, revision="0003")
    with old.writing() as connection:
        for number, (urgency, rank) in enumerate(known):
            upload_id = str(number) * 32
            (tmp_path / "storage" / upload_id).mkdir(parents=True)
            upload = {"upload_id": upload_id, "accepted_at": now(), "submitted_by": "", "files": 1, "bytes": 1}
            connection.execute(tables.uploads.insert().values(**upload))
            row = {**new_study(upload_id, upload_id, 0, 1), "received_at": now(), "submitted_by": ""}
            row |= {"state": "done" if urgency else "queued", "instances": 1}
            connection.execute(tables.studies.insert().values(**row | {"urgency": urgency, "urgency_rank": rank}))
    old.close()
    (tmp_path / "storage").chmod(0o700)
    store = opened()
    assert [one.urgency for one in store.studies()[0]] == ["immediate", "prompt", None, "routine"]
    for urgency in ("immediate", "prompt", "routine"):
        assert [one.urgency for one in store.studies(WorklistQuery(urgency=(urgency,)))[0]] == [urgency]
    assert store.studies(WorklistQuery(urgency=("unsure",)))[1] == 0
    assert [one.urgency for one in store.studies(WorklistQuery(urgency=("unknown",)))[0]] == [None]


def test_processes_that_start_at_once_do_not_collide(url: str, opened: Callable[..., Store]) -> None:
    errors: list[BaseException] = []
    barrier = threading.Barrier(6)

    def start() -> None:
        barrier.wait()
        try:
            opened().counts()
        except BaseException as error:  # noqa: BLE001 - shown below
            errors.append(error)

    threads = [threading.Thread(target=start) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []


def test_a_newer_database_is_refused(url: str, opened: Callable[..., Store]) -> None:
    opened()
    database = Database(url)
    with database.writing() as connection:
        connection.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))
    database.close()
    with pytest.raises(ConfigError, match=r"newer Hemoscope .revision 9999.. Install that version"):
        opened()


def test_two_stores_see_the_same_studies(opened: Callable[..., Store], submit: Callable[..., StudySummary]) -> None:
    one, other = opened(), opened()
    entry = submit(one, [b"x"])
    assert other.get(entry.study_id).model_dump(include=set(entry.model_dump())) == entry.model_dump()


def test_the_database_file_is_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "below" / "store.sqlite"
    database = Database(f"sqlite:///{path}")
    migrate(database)
    database.close()
    assert all(file.stat().st_mode & 0o077 == 0 for file in path.parent.iterdir())


def test_a_plain_postgresql_url_means_pg8000() -> None:
    assert database_url("postgresql://me@host/db").drivername == "postgresql+pg8000"
    socket = database_url("postgresql://me@/db?host=/run/postgresql")
    assert socket.query == {"unix_sock": "/run/postgresql/.s.PGSQL.5432"}


@pytest.mark.parametrize("url", ["mysql://me@host/db", "sqlite://", "sqlite:///:memory:", "sqlite:///x?mode=ro"])
def test_other_databases_are_refused(url: str) -> None:
    with pytest.raises(ConfigError, match=re.escape("Give sqlite:///PATH or postgresql://")):
        Database(url)


def test_what_is_no_url_is_refused_without_quoting_it() -> None:
    with pytest.raises(ConfigError, match="cannot be parsed") as refused:
        Database("secret password")
    assert "secret" not in str(refused.value)


def test_a_file_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"cannot be opened.*Give a path"):
        Database(f"sqlite:///{tmp_path}/file/store.sqlite")


@pytest.mark.parametrize("mode", ["prefer", "require", "verify-full"])
def test_an_unreachable_database_is_reported_without_its_password(mode: str) -> None:
    database = Database(f"postgresql://me:secret@127.0.0.1:1/db?sslmode={mode}")
    with pytest.raises(StoreError, match=r"does not answer.*URL is right") as refused:
        migrate(database)
    assert refused.value.code == "database_unreachable"
    assert "secret" not in str(refused.value)
    database.close()


def test_a_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite"
    path.write_bytes(b"not a database at all" * 100)
    database = Database(f"sqlite:///{path}")
    with pytest.raises(ConfigError, match="is not an SQLite database"):
        migrate(database)
    database.close()
