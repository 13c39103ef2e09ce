"""The options of ``hemoscope serve`` and ``hemoscope users``: where values come from, and what is refused."""

import argparse
import dataclasses
import io
import logging
import os
import re
import sys
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import hemoscope
from hemoscope.cli import main, serve
from hemoscope.cli.settings_sources import Option, add_options, options, settings_from
from hemoscope.errors import ConfigError, StoreError
from hemoscope.store.settings import Settings, UploadLimits
from hemoscope.store.values import Role, User
from hemoscope.web.credentials import load_credentials

PASSWORD = "a long enough password"


@pytest.fixture(autouse=True)
def process_as_it_was() -> Iterator[None]:
    """Put back what a server sets for its whole process: the log, and who may read new files."""
    root, mask = logging.getLogger(), os.umask(0o022)
    os.umask(mask)
    handlers, level = root.handlers[:], root.level
    hooks = sys.excepthook, threading.excepthook, sys.unraisablehook, logging.raiseExceptions
    yield
    sys.excepthook, threading.excepthook, sys.unraisablehook, logging.raiseExceptions = hooks
    os.umask(mask)
    root.handlers[:] = handlers
    root.setLevel(level)


def parsed(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_options(parser)
    return parser.parse_args(list(words))


@pytest.mark.parametrize("one", options(), ids=lambda one: one.name)
def test_the_command_line_counts_before_the_environment_before_the_file(one: Option, tmp_path: Path) -> None:
    file, texts = tmp_path / "room.toml", ["0.25", "0.5", "0.75"] if one.read is float else ["301", "302", "303"]
    if one.name == "limit":
        texts = [f"members={text}" for text in texts]
    if one.name == "log_format":
        texts = ["json", "text", "json"]
    if one.name == "device":
        texts = ["cuda", "cpu", "cuda"]
    if one.name == "precision":
        texts = ["float32", "bf16", "int8"]
    held = [one.read(text) for text in texts]
    written = texts[0] if one.read in (int, float) else f'"{texts[0]}"'
    given = [one.option, texts[2]]
    if one.many:
        held, written = [(value,) for value in held], f"[{written}]"
    if one.flag:
        texts, held, written, given = ["1", "0", "1"], [True, False, True], "true", [one.option]
    file.write_text(f"{one.name} = {written}\n{NEEDED.get(one.name, '')}\n")
    config, environment = ["--config", str(file)], {one.variable: texts[1]}
    assert getattr(settings_from(parsed(*config), {}), one.name) == held[0]
    assert getattr(settings_from(parsed(*config), environment), one.name) == held[1]
    assert getattr(settings_from(parsed(*config, *given), environment), one.name) == held[2]


# What must be given beside a setting, in the file.
NEEDED = {
    "host": 'users = "x"',
    "allowed_host": 'users = "x"',
    "trusted_proxy": 'users = "x"',
    "tls_cert": 'tls_key = "x"',
    "tls_key": 'tls_cert = "x"',
}


def test_several_values_are_a_list_in_the_file_and_separated_by_commas_in_the_environment(tmp_path: Path) -> None:
    file = tmp_path / "room.toml"
    file.write_text('users = "x"\nallowed_host = ["a", "b"]\n')
    settings = settings_from(parsed("--config", str(file)), {"HEMOSCOPE_TRUSTED_PROXY": "10.0.0.1, 10.0.0.2"})
    assert settings.allowed_host == ("a", "b")
    assert settings.trusted_proxy == ("10.0.0.1", "10.0.0.2")


def test_a_default_stands_in_the_settings_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    changed = {"port": 1234, "session_hours": 7.5, "upload_mib": 77, "upload_files": 55, "logins_per_minute": 44}
    fields = [(one.name, one.type, replaced_default(one, changed)) for one in dataclasses.fields(Settings)]
    another = dataclasses.make_dataclass("Settings", fields, bases=(Settings,), frozen=True, kw_only=True)
    monkeypatch.setattr("hemoscope.cli.settings_sources.Settings", another)
    text = " ".join(help_of_serve().split())
    for name, default in changed.items():
        assert f"(default: {default})" in text, name
        assert getattr(settings_from(parsed(), {}), name) == default
    assert settings_from(parsed(), {}).session == timedelta(hours=7.5)
    assert settings_from(parsed(), {}).upload_limits == UploadLimits(
        file_bytes=77 << 20, files=55, upload_bytes=77 << 20
    )


def replaced_default(one: "dataclasses.Field[Any]", changed: dict[str, Any]) -> Any:
    return dataclasses.field(default=changed.get(one.name, one.default), metadata=one.metadata)


def help_of_serve() -> str:
    parser = argparse.ArgumentParser()
    add_options(parser)
    return parser.format_help()


def test_no_other_file_states_a_default_of_the_settings() -> None:
    source = Path(hemoscope.__file__).parent
    defaults = r"hours=12|4 << 30|1 << 30|\b4096\b|20_000|\b6000\b|minutes=15|seconds=15"
    files = [path for part in ("store", "web") for path in (source / part).rglob("*.py")]
    files += (source / "cli").glob("serve*.py")
    stating = {path.name for path in files if re.search(defaults, path.read_text())}
    assert stating == {"settings.py"}


def test_every_setting_that_users_give_has_a_description() -> None:
    assert all(one.help for one in options())
    internal = {one.name for one in dataclasses.fields(Settings)} - {one.name for one in options()}
    assert internal == {"lease_s", "attempts", "poll_s", "concurrent_uploads"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("prot = 1", "unknown keys: prot"),
        ("port = ", "is not TOML"),
        ("port = " + "[" * 5000, "is not TOML"),
        ('port = "many"', "port in room.toml is a whole number, got 'many'"),
        ("port = true", "port in room.toml is one value"),
        ('deidentify = "yes"', "deidentify in room.toml is true or false"),
        ('allowed_host = "a"', "allowed_host in room.toml is a list"),
    ],
)
def test_a_file_with_invalid_values_is_refused_with_the_key(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "room.toml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=words):
        settings_from(parsed("--config", str(file)), {})


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read none\.toml"):
        settings_from(parsed("--config", str(tmp_path / "none.toml")), {})


def test_a_variable_that_is_no_flag_is_refused() -> None:
    assert settings_from(parsed(), {"HEMOSCOPE_DEIDENTIFY": "1"}).deidentify
    with pytest.raises(ConfigError, match="HEMOSCOPE_DEIDENTIFY is 1 or 0"):
        settings_from(parsed(), {"HEMOSCOPE_DEIDENTIFY": "please"})


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--host", "0.0.0.0"], "nobody would have to log in"),
        (["--allowed-host", "reading.example"], "nobody would have to log in"),
        (["--tls-cert", "x.pem"], "belong together"),
        (["--tls-cert", "none.pem", "--tls-key", "none.pem"], "cannot be used"),
        (["--workers", "-1"], "--workers is at least 0"),
        (["--session-hours", "0"], "--session-hours is above 0"),
        (["--prevalence", "2"], "a share between 0 and 1"),
        (["--users", "none"], "cannot be read"),
        (["--show-identity", "--deidentify"], "at once"),
        (["--database", "mysql://x"], "database"),
        (["--database-wait-minutes", "-1"], "--database-wait-minutes is at least 0"),
        (["--trash-days", "0"], "--trash-days is at least 1"),
    ],
)
def test_what_cannot_be_served_is_refused_with_usage_and_the_remedy(
    tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    storage = ["--storage", str(tmp_path / "s"), "--workers", "0"]
    assert main(["serve", "--model", str(tiny_bundle), *storage, *words]) == 2
    assert message in capsys.readouterr().err


def test_a_database_that_does_not_answer_ends_the_start_after_the_wait(
    tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--storage", str(tmp_path / "s"), "--database", "postgresql://me:secret@127.0.0.1:1/db"]
    assert main(["serve", "--model", str(tiny_bundle), *words, "--database-wait-minutes", "0"]) == 1
    error = capsys.readouterr().err
    assert "the database does not answer" in error
    assert "Check that the database runs" in error
    assert "secret" not in error


def test_a_taken_port_is_refused_with_the_remedy(
    tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        storage = ["--storage", str(tmp_path / "s"), "--workers", "0"]
        assert main(["serve", "--model", str(tiny_bundle), "--port", port, *storage]) == 2
    assert "choose another --port" in capsys.readouterr().err


@pytest.mark.parametrize(("listed", "warned"), [(["prompt"], True), (["prompt", "unsure"], False)])
def test_a_webhook_for_prompt_studies_alone_is_warned_about_with_a_model_that_can_be_unsure(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], listed: list[str], warned: bool
) -> None:
    import socket

    pytest.importorskip("highdicom")
    (tmp_path / "secret").write_text("a secret of many characters")
    webhook = f"url = 'https://site.example/'\nsecret_file = 'secret'\nurgencies = {listed}"
    (tmp_path / "node.toml").write_text(f"[webhook]\n{webhook}\n")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        words = ["--port", str(taken.getsockname()[1]), "--storage", str(tmp_path / "s"), "--workers", "0"]
        assert main(["serve", "--node", str(tmp_path / "node.toml"), *words]) == 2
    assert ("[webhook] has prompt and lacks unsure" in capsys.readouterr().err) == warned


class TestUsers:
    def test_a_password_comes_from_a_pipe_and_is_not_in_the_file(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        file = tmp_path / "users"
        monkeypatch.setattr("sys.stdin", io.StringIO(f"{PASSWORD}\n"))
        assert main(["users", "add", "agnes", "--users", str(file), "--role", "admin"]) == 0
        assert PASSWORD not in file.read_text() + capsys.readouterr().out
        known = load_credentials(users=file, tokens=None)
        assert known.user_of_password("agnes", PASSWORD) == User(name="agnes", role=Role.ADMIN)
        assert known.user_of_password("agnes", "another password") is None
        assert known.user_of_password("nobody", PASSWORD) is None

    @pytest.mark.parametrize("password", ["short", " " * 12, "\u00a0" * 12])
    def test_a_short_or_blank_password_is_refused(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, password: str
    ) -> None:
        monkeypatch.setattr("sys.stdin", io.StringIO(f"{password}\n"))
        assert main(["users", "add", "agnes", "--users", str(tmp_path / "users")]) == 2
        assert not (tmp_path / "users").exists()

    def test_passwords_typed_at_a_terminal_must_agree(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        class Terminal(io.StringIO):
            def isatty(self) -> bool:
                return True

        typed = [PASSWORD, PASSWORD + "x"]
        monkeypatch.setattr("sys.stdin", Terminal())
        monkeypatch.setattr("hemoscope.cli.users.getpass", lambda _prompt: typed.pop(0))
        assert main(["users", "add", "agnes", "--users", str(tmp_path / "users")]) == 2
        assert "the two passwords differ" in capsys.readouterr().err

    def test_a_token_is_printed_once_and_kept_as_a_hash(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        file = tmp_path / "tokens"
        assert main(["users", "token", "scraper", "--token-file", str(file)]) == 0
        token = capsys.readouterr().out.strip()
        assert token not in file.read_text()
        assert load_credentials(users=None, tokens=file).user_of_token(token) == User(name="scraper", role=Role.READER)
        assert main(["users", "remove", "scraper", "--token-file", str(file)]) == 0
        assert main(["users", "remove", "scraper"]) == 2
        assert "from which file?" in capsys.readouterr().err


class Versions:
    """What ``serve`` needs of a store to skip versions."""

    def __init__(self, *, is_sqlite: bool, code: str) -> None:
        self.database = SimpleNamespace(is_sqlite=is_sqlite)
        self.code = code

    def skip_versions(self) -> None:
        raise StoreError(code=self.code, reason="the disk of the database file is full", remedy="Free space")


def test_a_fault_that_passes_does_not_end_the_start(caplog: pytest.LogCaptureFixture) -> None:
    serve._skip_versions(Versions(is_sqlite=False, code="bad_setting"))  # type: ignore[arg-type]
    assert not caplog.records
    serve._skip_versions(Versions(is_sqlite=True, code="database_full"))  # type: ignore[arg-type]
    assert "the disk of the database file is full. Free space" in caplog.text
    with pytest.raises(StoreError):
        serve._skip_versions(Versions(is_sqlite=True, code="bad_setting"))  # type: ignore[arg-type]
