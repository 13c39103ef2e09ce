"""The reference of experiment files says what the code says: every key of every table, with its default."""

import dataclasses
import json
import re
import tomllib
from pathlib import Path
from typing import Any

from hemoscope.training.experiment import Experiment
from hemoscope.training.models.sequence import SequenceConfig

PAGE = Path(__file__).resolve().parents[2] / "docs" / "reference" / "experiment.md"
ROW = re.compile(r"^\| `(\w+)` \| `(.+?)` \| \S", re.MULTILINE)


def documented() -> dict[str, dict[str, Any]]:
    """The page's defaults by table and key."""
    tables: dict[str, dict[str, Any]] = {}
    for section in re.split(r"^## ", PAGE.read_text(), flags=re.MULTILINE)[1:]:
        name = re.match(r"`\[(\w+)\]`", section)
        assert name, section[:40]
        rows = ROW.findall(section)
        tables[name[1]] = {key: None if text == "none" else tomllib.loads(f"x = {text}")["x"] for key, text in rows}
    return tables


def test_every_key_of_an_experiment_stands_on_the_page_with_its_default() -> None:
    record = Experiment(name="x").to_json() | {"sequence": dataclasses.asdict(SequenceConfig())}
    tables = {name: table for name, table in json.loads(json.dumps(record)).items() if isinstance(table, dict)}
    assert documented() == tables
    rest = set(record) - set(tables)
    assert rest == {"name", "description"}
    assert all(f"`{key}`" in PAGE.read_text().partition("## ")[0] for key in rest)
