"""``hemoscope serve``: the reading room, with its workers, until SIGTERM or Ctrl+C."""

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hemoscope.cli.exit_codes import ExitCode
from hemoscope.cli.serve_options import add_options, data_folder, gather
from hemoscope.errors import ConfigError
from hemoscope.version import DISCLAIMER

if TYPE_CHECKING:
    from hemoscope.store.values import UploadLimits
    from hemoscope.store.worker_settings import WorkerSettings
    from hemoscope.web.settings import WebSettings


def register(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    add_options(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Check everything, migrate the database, start the workers, and serve."""
    from datetime import timedelta

    from hemoscope.store.store import open_store
    from hemoscope.store.supervisor import Supervisor
    from hemoscope.web.app import create_app
    from hemoscope.web.logs import configure_logs
    from hemoscope.web.server import check_certificate, run_server

    values = gather(arguments, os.environ)
    _check(values)
    settings, tls = _web_settings(values), _tls(values)
    if tls is not None:
        check_certificate(*tls)
    configure_logs()
    os.umask(0o077)  # the database lies in the private folder by default, and is made first
    workers = _worker_settings(values)
    store = open_store(workers.url, workers.storage, limits=_upload_limits(values), keep_source=workers.keep_source)
    try:
        supervised = Supervisor(
            store,
            workers,
            workers=values["workers"],
            time_limit=timedelta(minutes=values["time_limit_minutes"]),
            retention_days=values["retention_days"],
        )
        with supervised:
            run_server(create_app(store, settings), settings, tls=tls, started=_announce)
    finally:
        store.close()
    return ExitCode.OK


def _announce(url: str) -> None:
    sys.stdout.write(f"Hemoscope's reading room is at {url} (Ctrl+C ends it). {DISCLAIMER}\n")
    sys.stdout.flush()


def _check(values: dict[str, Any]) -> None:
    """Refuse numbers out of range and options that need each other.

    Raises:
        ConfigError: naming the option and the remedy.

    """
    least = {"workers": 0, "threads": 1, "worker_memory_mib": 256, "time_limit_minutes": 1, "retention_days": 1}
    least |= {"upload_mib": 1, "upload_files": 1, "requests_per_minute": 1, "logins_per_minute": 1}
    for name, lowest in least.items():
        if values[name] is not None and values[name] < lowest:
            msg = f"--{name.replace('_', '-')} is at least {lowest}, got {values[name]}"
            raise ConfigError(msg)
    if not 0 < values["session_hours"] <= 24 * 365:
        msg = f"--session-hours is above 0 and at most a year, got {values['session_hours']}"
        raise ConfigError(msg)


def _web_settings(values: dict[str, Any]) -> "WebSettings":
    from datetime import timedelta

    from hemoscope.inference.bundle import load_bundle
    from hemoscope.web.credentials import load_credentials
    from hemoscope.web.settings import RateLimits, WebSettings

    bundle = load_bundle(values["model"])
    return WebSettings(
        host=values["host"],
        port=values["port"],
        allowed_hosts=values["allowed_host"],
        trusted_proxies=values["trusted_proxy"],
        credentials=load_credentials(users=values["users"], tokens=values["token_file"]),
        identity_shown=values["show_identity"],
        prevalence=values["prevalence"],
        model_card={**bundle.card.to_json(), "sha256": bundle.sha256},
        session=timedelta(hours=values["session_hours"]),
        rates=RateLimits(requests=values["requests_per_minute"], logins=values["logins_per_minute"]),
        upload_bytes=values["upload_mib"] << 20,
    )


def _upload_limits(values: dict[str, Any]) -> "UploadLimits":
    from hemoscope.store.values import UploadLimits

    most = values["upload_mib"] << 20
    return UploadLimits(file_bytes=most, files=values["upload_files"], upload_bytes=most)  # a ZIP is one file


def _worker_settings(values: dict[str, Any]) -> "WorkerSettings":
    from hemoscope.store.worker_settings import WorkerSettings

    storage = Path(values["storage"] or data_folder()).absolute()
    memory = values["worker_memory_mib"]
    return WorkerSettings(
        url=values["database"] or f"sqlite:///{storage / 'hemoscope.sqlite3'}",
        storage=storage,
        model=values["model"] and values["model"].absolute(),
        threads=values["threads"],
        keep_identity=values["show_identity"],
        deidentify=values["deidentify"],
        keep_source=values["keep_source"],
        memory_bytes=None if memory is None else memory << 20,
    )


def _tls(values: dict[str, Any]) -> tuple[Path, Path] | None:
    certificate, key = values["tls_cert"], values["tls_key"]
    if (certificate is None) != (key is None):
        msg = "--tls-cert and --tls-key belong together. Give both, or none"
        raise ConfigError(msg)
    return None if certificate is None else (certificate, key)
