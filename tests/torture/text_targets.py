"""Settings, experiments, user files and tables of labels as targets of fuzzing."""

import json
from collections.abc import Callable
from pathlib import Path

from hemoscope.errors import HemoscopeError

from . import mutation
from .target import REPOSITORY, Target


def _toml_seeds(kind: str) -> Callable[[Path], list[bytes]]:
    def seeds(_folder: Path) -> list[bytes]:
        files = sorted((REPOSITORY / "src/hemoscope").rglob("*.toml"))
        wanted = [
            path.read_bytes() for path in files if (b"\nexperiment" in path.read_bytes()) == (kind == "federation")
        ]
        assert wanted
        return wanted

    return seeds


def _experiment(data: bytes, folder: Path) -> None:
    from hemoscope.training.experiment import read_experiment

    (folder / "x.toml").write_bytes(data)
    read_experiment(folder / "x.toml").to_json()


def _federation(data: bytes, folder: Path) -> None:
    from hemoscope.federated.settings.federation import parse_federation, read_federation

    (folder / "x.toml").write_bytes(data)
    found = read_federation(folder / "x.toml")
    assert parse_federation(json.dumps(found.to_json())).fingerprint == found.fingerprint


def _site(data: bytes, folder: Path) -> None:
    from hemoscope.federated.settings.site import read_site

    (folder / "x.toml").write_bytes(data)
    read_site(folder / "x.toml")


_SITE = b"""name = "north"
data = "cache"
work = "work"
patients = "patients.txt"

[policy]
min_sites = 3
"""


def _settings(data: bytes, folder: Path) -> None:
    import argparse

    from hemoscope.cli.settings_sources import settings_from

    (folder / "x.toml").write_bytes(data)
    found = settings_from(argparse.Namespace(config=folder / "x.toml"), {})
    assert type(found).from_line(found.to_line("w")) == ("w", found), "workers get other settings"


_SETTINGS = b"""port = 8443
host = "127.0.0.1"
database = "sqlite:///x.sqlite3"
workers = 2
time_limit_minutes = 12.5
limit = ["members=5k", "archive_bytes=2G"]
prevalence = 0.1
retention_days = 30
deidentify = true
session_hours = 8
"""


def _users_seeds(folder: Path) -> list[bytes]:
    from hemoscope.store.users import hash_password
    from hemoscope.store.values import Role
    from hemoscope.web.credentials import hash_token, write_entry

    hashed = hash_password("a long enough password")
    for role in Role:
        write_entry(folder / "users", role.value, role, hashed)
        write_entry(folder / "tokens", f"{role.value}-program", role, hash_token("x" * 32))
    return [(folder / name).read_bytes() for name in ("users", "tokens")]


def _users(data: bytes, folder: Path) -> None:
    from hemoscope.errors import ConfigError
    from hemoscope.web.credentials import load_credentials

    path = folder / "credentials"
    path.touch(mode=0o600)
    path.write_bytes(data)
    for files in ({"users": path, "tokens": None}, {"users": None, "tokens": path}):
        try:
            load_credentials(**files)
        except ConfigError:
            continue


def _table_seeds(_folder: Path) -> list[bytes]:
    from hemoscope.labels import LABELS

    header = ",".join(["image_id", *LABELS, "patient_id"])
    rows = [header, "a/IM0.dcm,1,0,0,0,0,1,p1", "a/IM1,0,0,0,0,0,0,p1", "IM2.dcm,0.9,.1,0,0,1e-3,.5,p2"]
    lines = ["ID,Label", *(f"ID_{image}_{label},{image % 2}" for image in range(2) for label in LABELS)]
    findings = ["study_instance_uid,sop_instance_uid,frame,source," + ",".join(LABELS), "s,1.2,0,IM0.dcm,.9,0,0,0,0,.8"]
    semicolons = ["sep=;", *(row.replace(",", ";").replace("0.9", "0,9") for row in rows)]
    return ["\r\n".join(one).encode() for one in (rows, lines, findings, semicolons)]


def _table(data: bytes, folder: Path) -> None:
    from hemoscope.data.image_ids import match_ids
    from hemoscope.data.image_table import read_image_table
    from hemoscope.data.label_table import labelled_images
    from hemoscope.data.table_cells import Content
    from hemoscope.data.table_preview import table_lines

    path = folder / "l.csv"
    path.write_bytes(data)
    for content in Content:
        try:
            table = read_image_table(path, content, more=("patient_id",))
        except HemoscopeError:
            continue
        list(table_lines(table, content))
        match_ids(table.image_ids, ["a/IM0.dcm", "b/IM2", *table.image_ids[:3]], root="a")
        if content is Content.LABELS:
            labelled_images(table)


def _text(seeds: Callable[[Path], list[bytes]], run: Callable[[bytes, Path], object], weight: float) -> Target:
    return Target(seeds=seeds, run=run, mutate=mutation.mutate_text, weight=weight)


TARGETS = {
    "experiments": _text(_toml_seeds("experiment"), _experiment, 1),
    "federations": _text(_toml_seeds("federation"), _federation, 1),
    "sites": _text(lambda _: [_SITE], _site, 0.5),
    "server settings": _text(lambda _: [_SETTINGS], _settings, 0.5),
    "users and tokens": _text(_users_seeds, _users, 0.5),
    "label tables": _text(_table_seeds, _table, 2),
}
