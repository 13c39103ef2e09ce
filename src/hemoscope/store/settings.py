"""How a site runs: one class with every setting and its default, which ``cli``, ``store``, ``web`` and ``pacs`` share.

A field with help is an option of ``hemoscope serve``, an environment variable and a key of a TOML file, see
``cli.serve_options``; the others are not for users. Nothing else states a default.
"""

import json
import math
import os
from dataclasses import asdict, dataclass, field, fields
from datetime import timedelta
from pathlib import Path
from typing import Any

from hemoscope.dicom.read_limits import ReadLimits, limits_from_options
from hemoscope.errors import ConfigError
from hemoscope.inference.precision import DEFAULT_PRECISION, DEVICE_HELP, DEVICES, PRECISION_HELP, precision_of
from hemoscope.logs import FORMATS

_LONGEST_SESSION_HOURS = 24 * 365
_PATHS = ("storage", "model", "node", "messages", "users", "token_file", "tls_cert", "tls_key")
_LISTS = ("allowed_host", "trusted_proxy", "limit")


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadLimits:
    """How much one upload may bring: bytes in a file, files, and bytes in all."""

    file_bytes: int
    files: int
    upload_bytes: int

    def __post_init__(self) -> None:
        """Reject a limit that would refuse everything."""
        for one in fields(self):
            if getattr(self, one.name) < 1:
                msg = f"limit {one.name} must be at least 1, got {getattr(self, one.name)}"
                raise ValueError(msg)


def _help(summary: str, metavar: str = "", *, least: int | None = None) -> dict[str, Any]:
    """Describe a setting that users may give: one line of help, and the least value accepted."""
    return {"help": summary, "metavar": metavar, "least": least}


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All settings of a reading room; the help of each option says what it means.

    Attributes:
        lease_s: a worker without a heartbeat for so long loses its job.
        attempts: workers that a job may kill before it fails.
        poll_s: pause of a worker between two looks at an empty queue.
        concurrent_uploads: uploads that one web process receives at a time; further ones are asked to try again.
    """

    host: str = field(default="127.0.0.1", metadata=_help("listen on this address", "ADDRESS"))
    port: int = field(default=8000, metadata=_help("listen on this port, 0 for any free one", "N", least=0))
    storage: Path | None = field(
        default=None, metadata=_help("private folder for pixels (default: your data folder)", "DIR")
    )
    database: str | None = field(
        default=None,
        metadata=_help(
            "sqlite:///PATH or postgresql://USER:PASSWORD@HOST/NAME (default: SQLite in the storage folder)", "URL"
        ),
    )
    database_wait_minutes: float = field(
        default=10.0, metadata=_help("wait so long for a database that does not answer at the start", "N")
    )
    model: Path | None = field(default=None, metadata=_help("a model's folder (default: the one that ships)", "BUNDLE"))
    node: Path | None = field(
        default=None, metadata=_help("TOML file of the DICOM node, to whose destinations results are sent", "FILE")
    )
    messages: Path | None = field(
        default=None, metadata=_help("texts of pages and reports in another language (default: English)", "FILE")
    )
    workers: int = field(default=1, metadata=_help("processes that read studies", "N", least=0))
    threads: int | None = field(
        default=None,
        metadata=_help(
            "processors that each worker uses (default: all, shared by the workers, eight at most)", "N", least=1
        ),
    )
    device: str = field(default="cpu", metadata=_help(DEVICE_HELP, "DEVICE"))
    precision: str = field(default=DEFAULT_PRECISION.value, metadata=_help(PRECISION_HELP, "P"))
    worker_memory_mib: int | None = field(
        default=None,
        metadata=_help(
            "the most memory that a worker may take for a study, on top of the model (Linux)", "N", least=256
        ),
    )
    time_limit_minutes: float = field(default=15.0, metadata=_help("longest time for one upload", "N"))
    users: Path | None = field(
        default=None, metadata=_help("users who may log in; made by: hemoscope users add", "FILE")
    )
    token_file: Path | None = field(
        default=None, metadata=_help("tokens of programs; made by: hemoscope users token", "FILE")
    )
    claim_minutes: float = field(
        default=2.0, metadata=_help("show who reads a study for so long after the last sign of life", "N")
    )
    session_hours: float = field(default=12.0, metadata=_help("how long a login lasts", "N"))
    tls_cert: Path | None = field(default=None, metadata=_help("certificate with its chain, PEM", "FILE"))
    tls_key: Path | None = field(default=None, metadata=_help("its key, PEM", "FILE"))
    allowed_host: tuple[str, ...] = field(
        default=(), metadata=_help("a name that browsers may use; may be repeated", "NAME")
    )
    trusted_proxy: tuple[str, ...] = field(
        default=(), metadata=_help("a proxy whose X-Forwarded headers count; may be repeated", "ADDRESS")
    )
    retention_days: int | None = field(
        default=None, metadata=_help("delete studies after this time (default: never)", "N", least=1)
    )
    trash_days: int = field(
        default=7, metadata=_help("keep folders that the database does not know for so long", "N", least=1)
    )
    deidentify: bool = field(default=False, metadata=_help("keep only de-identified copies"))
    keep_source: bool = field(default=False, metadata=_help("keep the uploaded files after they are read"))
    keep_series: int = field(
        default=0, metadata=_help("other axial series of a study to keep, for a look beside it", "N", least=0)
    )
    show_identity: bool = field(default=False, metadata=_help("store and show patient name and ID"))
    prevalence: float | None = field(
        default=None, metadata=_help("share of studies with a bleed here, such as 0.1", "P")
    )
    upload_mib: int = field(default=4096, metadata=_help("size of one upload", "N", least=1))
    upload_files: int = field(default=20_000, metadata=_help("files in one upload", "N", least=1))
    limit: tuple[str, ...] = field(
        default=(),
        metadata=_help(
            "raise or lower a limit of what is read, such as archive_bytes=16G; may be repeated", "NAME=VALUE"
        ),
    )
    log_format: str = field(
        default="text", metadata=_help("text, or json: one object on each line of the log", "FORMAT")
    )
    requests_per_minute: int = field(default=6000, metadata=_help("of one client", "N", least=1))
    logins_per_minute: int = field(default=10, metadata=_help("of one client", "N", least=1))
    account_logins_per_minute: int = field(
        default=20, metadata=_help("for one user name, from addresses that never logged in to it", "N", least=1)
    )
    connections: int = field(default=1000, metadata=_help("open at a time", "N", least=1))
    connections_per_address: int = field(
        default=200, metadata=_help("open at a time from one address, other than a trusted proxy's", "N", least=1)
    )
    uploads_per_user: int = field(default=8, metadata=_help("that one user may send at a time", "N", least=1))
    header_seconds: float = field(
        default=15.0, metadata=_help("close a connection whose request headers take longer", "N")
    )
    least_rate: int = field(
        default=1024, metadata=_help("bytes per second at which a client must send and receive", "N", least=0)
    )
    body_seconds: float = field(default=30.0, metadata=_help("time over which --least-rate is measured", "N"))
    lease_s: float = 15.0
    attempts: int = 3
    poll_s: float = 0.05
    concurrent_uploads: int = 32

    def __post_init__(self) -> None:
        """Reject settings that are out of range, contradict each other, or let others in without a login.

        Raises:
            ConfigError: naming the option and what to do.
        """
        self._check_ranges()
        if self.log_format not in FORMATS:
            msg = f"--log-format is {' or '.join(FORMATS)}, got {self.log_format!r}"
            raise ConfigError(msg)
        precision_of(self.precision)
        if self.device not in DEVICES:
            msg = f"--device is {' or '.join(DEVICES)}, got {self.device!r}"
            raise ConfigError(msg)
        limits_from_options(self.limit)
        if self.show_identity and self.deidentify:
            msg = "identity cannot be shown and removed at once. Choose --show-identity or --deidentify"
            raise ConfigError(msg)
        if (self.tls_cert is None) != (self.tls_key is None):
            msg = "--tls-cert and --tls-key belong together. Give both, or none"
            raise ConfigError(msg)
        if not self.login_required:
            self._check_nobody_else_comes_in()

    def _check_ranges(self) -> None:
        for one in fields(self):
            least, value = one.metadata.get("least"), getattr(self, one.name)
            if least is not None and value is not None and value < least:
                msg = f"{option_name(one.name)} is at least {least}, got {value}"
                raise ConfigError(msg)
        if self.port > 65535:
            msg = f"--port is 0 to 65535 (0: any free one), got {self.port}"
            raise ConfigError(msg)
        if not 0 < self.session_hours <= _LONGEST_SESSION_HOURS:
            msg = f"--session-hours is above 0 and at most a year, got {self.session_hours:g}"
            raise ConfigError(msg)
        if self.prevalence is not None and not 0 < self.prevalence < 1:
            msg = f"--prevalence is a share between 0 and 1, such as 0.1, got {self.prevalence}"
            raise ConfigError(msg)
        if not self.time_limit_minutes > 0:
            msg = f"--time-limit-minutes is above 0, got {self.time_limit_minutes:g}"
            raise ConfigError(msg)
        if not self.database_wait_minutes >= 0:
            msg = f"--database-wait-minutes is at least 0, got {self.database_wait_minutes:g}"
            raise ConfigError(msg)
        for name in (
            "claim_minutes",
            "header_seconds",
            "body_seconds",
            "lease_s",
            "attempts",
            "poll_s",
            "concurrent_uploads",
        ):
            if not 0 < getattr(self, name) < math.inf:
                shown = option_name(name) if name.endswith(("_seconds", "_minutes")) else name
                msg = f"{shown} is above 0, got {getattr(self, name):g}"
                raise ConfigError(msg)

    def _check_nobody_else_comes_in(self) -> None:
        if not is_loopback(self.host):
            msg = (
                f"--host {self.host} lets other machines in, and nobody would have to log in. Give --users FILE or "
                "--token-file FILE (hemoscope users --help makes them), or keep --host 127.0.0.1"
            )
            raise ConfigError(msg)
        if self.allowed_host or self.trusted_proxy:
            msg = (
                "--allowed-host and --trusted-proxy let other machines in through a proxy, and nobody would have to "
                "log in. Give --users FILE or --token-file FILE (hemoscope users --help makes them)"
            )
            raise ConfigError(msg)

    @property
    def login_required(self) -> bool:
        """Whether there are users or tokens; without them everybody on this machine is an administrator."""
        return self.users is not None or self.token_file is not None

    @property
    def folder(self) -> Path:
        """The private folder, absolute."""
        return (self.storage or data_folder()).absolute()

    @property
    def database_url(self) -> str:
        """The database, by default SQLite in ``folder``."""
        return self.database or f"sqlite:///{self.folder / 'hemoscope.sqlite3'}"

    @property
    def tls(self) -> tuple[Path, Path] | None:
        """Certificate and key, or None."""
        return None if self.tls_cert is None or self.tls_key is None else (self.tls_cert, self.tls_key)

    @property
    def upload_limits(self) -> UploadLimits:
        """Limits of one upload; one file may fill it, since a ZIP is one file."""
        size = self.upload_mib << 20
        return UploadLimits(file_bytes=size, files=self.upload_files, upload_bytes=size)

    @property
    def read_limits(self) -> ReadLimits:
        """Limits of what is read from an upload."""
        return limits_from_options(self.limit)

    @property
    def session(self) -> timedelta:
        """How long a login lasts."""
        return timedelta(hours=self.session_hours)

    @property
    def claim(self) -> timedelta:
        """How long a reader's claim on a study lasts without a sign of life."""
        return timedelta(minutes=self.claim_minutes)

    @property
    def time_limit(self) -> timedelta:
        """How long a worker may read one upload."""
        return timedelta(minutes=self.time_limit_minutes)

    @property
    def lease(self) -> timedelta:
        """How long a worker without a heartbeat keeps its job."""
        return timedelta(seconds=self.lease_s)

    def to_line(self, worker_id: str) -> bytes:
        """One line of JSON for the standard input of a worker; a command line could be read by other users."""
        return json.dumps({"worker_id": worker_id, "settings": asdict(self)}, default=str).encode() + b"\n"

    @classmethod
    def from_line(cls, line: bytes) -> tuple[str, "Settings"]:
        """Read what ``to_line`` wrote: the worker's id and the settings."""
        document = json.loads(line)
        values = document["settings"]
        values |= {name: Path(values[name]) for name in _PATHS if values[name] is not None}
        values |= {name: tuple(values[name]) for name in _LISTS}
        return document["worker_id"], cls(**values)


def option_name(name: str) -> str:
    """A field's name as on the command line."""
    return "--" + name.replace("_", "-")


def data_folder() -> Path:
    """The folder of a user's studies by default: ``$XDG_DATA_HOME/hemoscope``, else ``~/.local/share/hemoscope``."""
    home = os.environ.get("XDG_DATA_HOME")
    return (Path(home) if home else Path.home() / ".local" / "share") / "hemoscope"


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach ``host``; a name other than ``localhost`` is not believed."""
    import ipaddress  # every command of hemoscope imports this module for its --help

    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
