"""The options of ``hemoscope serve`` and ``hemoscope users``: where values come from, and what is refused."""

import argparse
import io
import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from hemoscope.cli import main
from hemoscope.cli.serve_options import OPTIONS, gather
from hemoscope.errors import ConfigError
from hemoscope.store.values import Role, User
from hemoscope.web.credentials import load_credentials

PASSWORD = "a long enough password"


@pytest.fixture(autouse=True)
def process_as_it_was() -> Iterator[None]:
    """Put back what a server sets for its whole process: the log, and who may read new files."""
    root, mask = logging.getLogger(), os.umask(0o022)
    os.umask(mask)
    handlers, level = root.handlers[:], root.level
    yield
    os.umask(mask)
    root.handlers[:] = handlers
    root.setLevel(level)


def options(*words: str) -> argparse.Namespace:
    from hemoscope.cli.serve_options import add_options

    parser = argparse.ArgumentParser()
    add_options(parser)
    return parser.parse_args(list(words))


def test_the_command_line_counts_before_the_environment_before_the_file(tmp_path: Path) -> None:
    file = tmp_path / "room.toml"
    file.write_text('port = 1\nworkers = 1\nretention_days = 1\nallowed_host = ["a", "b"]\nshow_identity = true\n')
    environment = {"HEMOSCOPE_PORT": "2", "HEMOSCOPE_WORKERS": "2", "HEMOSCOPE_TRUSTED_PROXY": "10.0.0.1, 10.0.0.2"}
    values = gather(options("--config", str(file), "--port", "3"), environment)
    assert (values["port"], values["workers"], values["retention_days"]) == (3, 2, 1)
    assert values["allowed_host"] == ("a", "b")
    assert values["trusted_proxy"] == ("10.0.0.1", "10.0.0.2")
    assert values["show_identity"] is True
    assert values["host"] == "127.0.0.1"


def test_one_zip_may_fill_the_whole_upload() -> None:
    from hemoscope.cli.serve import _upload_limits

    limits = _upload_limits(gather(options("--upload-mib", "3000"), {}))
    assert limits.file_bytes == limits.upload_bytes == 3000 << 20


def test_every_option_has_a_value_and_a_description() -> None:
    assert set(gather(options(), {})) == {one.name for one in OPTIONS}
    assert all(one.help for one in OPTIONS)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("prot = 1", "unknown keys: prot"),
        ("port = ", "is no TOML"),
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
        gather(options("--config", str(file)), {})


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read none\.toml"):
        gather(options("--config", str(tmp_path / "none.toml")), {})


def test_a_variable_that_is_no_flag_is_refused() -> None:
    assert gather(options(), {"HEMOSCOPE_DEIDENTIFY": "1"})["deidentify"] is True
    with pytest.raises(ConfigError, match="HEMOSCOPE_DEIDENTIFY is 1 or 0"):
        gather(options(), {"HEMOSCOPE_DEIDENTIFY": "please"})


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
    ],
)
def test_what_cannot_be_served_is_refused_with_usage_and_the_remedy(
    tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    storage = ["--storage", str(tmp_path / "s"), "--workers", "0"]
    assert main(["serve", "--model", str(tiny_bundle), *storage, *words]) == 2
    assert message in capsys.readouterr().err


def test_a_taken_port_is_refused_with_the_remedy(
    tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        storage = ["--storage", str(tmp_path / "s"), "--workers", "0"]
        assert main(["serve", "--model", str(tiny_bundle), "--port", port, *storage]) == 2
    assert "choose another --port" in capsys.readouterr().err


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

    def test_a_short_password_is_refused(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("sys.stdin", io.StringIO("short\n"))
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
