"""The settings of a site: what is refused, and what follows from them."""

from pathlib import Path
from typing import Any

import pytest

from hemoscope.errors import ConfigError
from hemoscope.store.settings import Settings

USERS = Path("users")


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "reading.example", ""])
def test_other_hosts_than_loopback_need_somebody_to_log_in(host: str) -> None:
    with pytest.raises(ConfigError, match="nobody would have to log in"):
        Settings(host=host)
    assert Settings(host=host, users=USERS).host == host


def test_a_proxy_needs_somebody_to_log_in() -> None:
    for change in ({"allowed_host": ("reading.example",)}, {"trusted_proxy": ("127.0.0.1",)}):
        with pytest.raises(ConfigError, match="through a proxy, and nobody would have to log in"):
            Settings(**change)
        assert Settings(**change, token_file=USERS).login_required


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"show_identity": True, "deidentify": True}, "shown and removed at once"),
        ({"tls_key": Path("key")}, "belong together"),
        ({"prevalence": 1.0}, "a share between 0 and 1"),
        ({"port": 65536}, "--port is 0 to 65535"),
        ({"port": -1}, "--port is at least 0"),
        ({"log_format": "xml"}, "--log-format is text or json"),
        ({"logins_per_minute": 0}, "--logins-per-minute is at least 1"),
        ({"threads": 0}, "--threads is at least 1"),
        ({"worker_memory_mib": 255}, "--worker-memory-mib is at least 256"),
        ({"session_hours": 8761.0}, "--session-hours is above 0 and at most a year"),
        ({"time_limit_minutes": 0.0}, "--time-limit-minutes is above 0"),
        ({"lease_s": 0.0}, "lease_s is above 0"),
        ({"header_seconds": 0.0}, "--header-seconds is above 0"),
        ({"body_seconds": float("inf")}, "--body-seconds is above 0"),
        ({"connections": 0}, "--connections is at least 1"),
        ({"attempts": 0}, "attempts is above 0"),
    ],
)
def test_settings_out_of_range_or_in_contradiction_are_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Settings(**changes)


def test_a_zip_may_fill_the_whole_upload() -> None:
    limits = Settings(upload_mib=3000).upload_limits
    assert limits.file_bytes == limits.upload_bytes == 3000 << 20


def test_the_database_is_in_the_folder_of_the_user_by_default(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert Settings().folder == tmp_path / "hemoscope"
    assert Settings().database_url == f"sqlite:///{tmp_path}/hemoscope/hemoscope.sqlite3"
    assert Settings(storage=tmp_path / "s").database_url == f"sqlite:///{tmp_path}/s/hemoscope.sqlite3"
    assert Settings(database="postgresql://x").database_url == "postgresql://x"
