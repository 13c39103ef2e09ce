"""A site can show what left it, and its file says nothing more."""

import json
import stat
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("flwr", reason="needs the extra: make setup-federated")

from flwr.app import ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects

from hemoscope.federated.exchange.messages import pack, pack_each
from hemoscope.federated.site.audit import AuditTrail, record_facts

RECORDS = RecordDict(
    {
        "arrays": pack({"a": np.arange(100, dtype=np.float32), "b": np.zeros((2, 3), np.float32)}),
        "metrics": MetricRecord({"loss": 0.5}),
        "config": ConfigRecord({"text": "secret", "none": []}),
    }
)


@pytest.mark.parametrize("name", list(RECORDS))
def test_bytes_and_hash_are_those_that_flower_sends(name: str) -> None:
    record = RECORDS[name]
    facts = record_facts(name, record)
    sent = get_all_nested_objects(record)
    assert facts.bytes == sum(len(item.deflate()) for item in sent.values())
    assert facts.sha256 in sent
    assert (facts.name, facts.kind, facts.entries) == (name, type(record).__name__, len(record))


def test_equal_arrays_are_counted_once_as_they_are_sent_once() -> None:
    once, twice = (pack_each(dict.fromkeys(names, np.ones(1000, np.float32))) for names in ("a", "ab"))
    assert record_facts("x", twice).bytes < record_facts("x", once).bytes + 200


def test_a_change_of_one_value_changes_the_hash() -> None:
    one, other = (record_facts("x", pack({"a": np.array([value], np.float32)})).sha256 for value in (1.0, 2.0))
    assert one != other


def test_each_message_is_one_line_and_old_lines_stay(tmp_path: Path) -> None:
    trail = AuditTrail(tmp_path / "work" / "audit.jsonl")
    trail.record("in", run=7, group="3", kind="train", content=RECORDS)
    first = trail.path.read_bytes()
    trail.record("out", run=7, group="3", kind="train", content=None, reason="This site failed.")
    assert trail.path.read_bytes().startswith(first)
    came, left = map(json.loads, trail.path.read_text().splitlines())
    assert set(came) == {"time", "run", "round", "direction", "kind", "bytes", "records"}
    assert came["bytes"] == sum(record["bytes"] for record in came["records"]) > 0
    assert [record["name"] for record in came["records"]] == ["arrays", "metrics", "config"]
    assert (left["error"], left["bytes"], left["records"]) == ("This site failed.", 0, [])


def test_no_value_stands_in_the_file(tmp_path: Path) -> None:
    trail = AuditTrail(tmp_path / "audit.jsonl")
    trail.record("out", run=7, group="1", kind="evaluate", content=RECORDS)
    text = trail.path.read_text()
    assert "secret" not in text
    assert "0.5" not in text
    assert str(tmp_path) not in text


def test_of_the_servers_word_for_the_round_no_more_than_a_number_is_kept(tmp_path: Path) -> None:
    trail = AuditTrail(tmp_path / "audit.jsonl")
    trail.record("in", run=7, group="9" * 10_000, kind="train", content=None)
    assert json.loads(trail.path.read_text())["round"] == "9" * 20


def test_a_file_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "audit.jsonl").mkdir()
    with pytest.raises(OSError, match=r"audit\.jsonl"):
        AuditTrail(tmp_path / "audit.jsonl").record("in", run=1, group="1", kind="train", content=None)


def test_others_on_the_machine_may_not_read_it(tmp_path: Path) -> None:
    trail = AuditTrail(tmp_path / "audit.jsonl")
    trail.record("in", run=1, group="1", kind="train", content=None)
    assert stat.S_IMODE(trail.path.stat().st_mode) == 0o600


def test_an_empty_record_has_facts_too() -> None:
    assert record_facts("arrays", ArrayRecord({})).entries == 0
