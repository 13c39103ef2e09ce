"""``hemoscope audit``: the chain of the log is checked and exported without changing anything."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from hemoscope.cli import main
from hemoscope.store.database import Database
from hemoscope.store.migrate import migrate
from hemoscope.store.settings import Settings
from hemoscope.store.store import Store, open_store

Tamper = Callable[[str], None]


@pytest.fixture
def where(tmp_path: Path) -> list[str]:
    return ["--storage", str(tmp_path / "storage")]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = open_store(Settings(storage=tmp_path / "storage"))
    for user in ("anna", "bert", "anna"):
        opened.audit(user=user, action="read audit")
    yield opened
    opened.close()


@pytest.fixture
def tamper(store: Store) -> Tamper:
    def run(statement: str) -> None:
        with store._database.writing() as connection:
            connection.execute(sa.text(statement))

    return run


def test_a_sound_log_prints_its_anchor_which_the_next_check_takes(
    store: Store, where: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["audit", "verify", *where]) == 0
    said = capsys.readouterr().out
    assert said.startswith("3 entries, all sound.")
    anchor = said.split()[-1]
    store.audit(user="anna", action="view")
    assert main(["audit", "verify", *where, "--anchor", anchor]) == 0


def test_a_changed_entry_is_named_with_exit_code_1(
    tamper: Tamper, where: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    tamper("UPDATE audit SET user_name = 'eve' WHERE audit_id = 2")
    assert main(["audit", "verify", *where]) == 1
    assert capsys.readouterr().err == "hemoscope audit: entry 2 was changed. The 1 entries before are sound\n"


@pytest.mark.usefixtures("store")
def test_an_exported_log_is_checked_without_its_database(
    where: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "audit.jsonl"
    assert main(["audit", "export", *where, "--output", str(file)]) == 0
    assert main(["audit", "export", *where]) == 0
    assert capsys.readouterr().out == file.read_text()
    assert file.stat().st_mode & 0o777 == 0o600
    assert main(["audit", "verify", "--file", str(file)]) == 0
    lines = file.read_text().splitlines()
    file.write_text("\n".join([lines[0], json.dumps(json.loads(lines[1]) | {"user": "eve"}), lines[2]]))
    assert main(["audit", "verify", "--file", str(file)]) == 1
    assert "entry 2 was changed" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "words"),
    [(None, "cannot read audit.jsonl"), (b"{}", "line 1 is no entry"), (b"\xff", "line 1 is no entry")],
)
def test_what_is_no_export_is_refused(
    tmp_path: Path, content: bytes | None, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "audit.jsonl"
    if content is not None:
        file.write_bytes(content)
    assert main(["audit", "verify", "--file", str(file)]) == 2
    assert words in capsys.readouterr().err


@pytest.mark.usefixtures("store")
def test_a_file_that_cannot_be_written_is_refused(
    where: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["audit", "export", *where, "--output", str(tmp_path / "none" / "x")]) == 2
    assert "cannot write x" in capsys.readouterr().err


def test_a_database_that_is_not_there_is_named_and_not_made(
    where: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["audit", "verify", *where]) == 2
    assert "there is no database hemoscope.sqlite3" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_database_of_an_earlier_version_is_not_changed(
    where: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old = Database(f"sqlite:///{tmp_path}/storage/hemoscope.sqlite3")
    migrate(old, revision="0006")
    assert main(["audit", "verify", *where]) == 2
    assert "Start hemoscope serve once" in capsys.readouterr().err
    with old.reading() as connection:
        assert not sa.inspect(connection).has_table("audit_chain")
    old.close()
