"""Answers to the stages of secure aggregation, looked at before Flower's workflow believes them: it would trip."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from flwr.app import RecordDict

from hemoscope.federated.exchange.array_header import read_array_header
from hemoscope.federated.flower_internals import RECORD_KEY_CONFIGS, Key, Stage


def fault(stage: str, content: RecordDict, nodes: set[int], length: int) -> str | None:
    """What is wrong with a site's answer to a stage; None where nothing is.

    Args:
        stage: of the protocol.
        content: of the answer.
        nodes: that take part; an answer may name no others.
        length: of the vector.
    """
    config = content.config_records.get(RECORD_KEY_CONFIGS)
    if config is None:
        return "no record of secure aggregation"
    check: Callable[[Mapping[str, Any]], bool] = {
        Stage.SETUP: _good_keys,
        Stage.SHARE_KEYS: lambda found: _good_pairs(found, Key.DESTINATION_LIST, Key.CIPHERTEXT_LIST, nodes),
        Stage.COLLECT_MASKED_VECTORS: lambda found: _good_vector(found, length) and _good_metrics(content),
        Stage.UNMASK: lambda found: _good_pairs(found, Key.NODE_ID_LIST, Key.SHARE_LIST, nodes),
    }[stage]
    return None if check(config) else f"a bad answer to {stage}"


def _good_keys(found: Mapping[str, Any]) -> bool:
    return all(isinstance(found.get(key), bytes) for key in (Key.PUBLIC_KEY_1, Key.PUBLIC_KEY_2))


def _good_pairs(found: Mapping[str, Any], ids: str, values: str, nodes: set[int]) -> bool:
    left, right = found.get(ids), found.get(values)
    if not isinstance(left, list) or not isinstance(right, list) or len(left) != len(right):
        return False
    known = all(type(node) is int and node in nodes for node in left)
    return known and all(isinstance(value, bytes) for value in right)


def _good_vector(found: Mapping[str, Any], length: int) -> bool:
    masked = found.get(Key.MASKED_PARAMETERS)
    return isinstance(masked, list) and len(masked) == 2 and all(map(_is_int64, masked, (1, length)))


def _is_int64(stored: Any, length: int) -> bool:
    """Whether bytes are numpy's file of int64 (length,); the header is not believed, see ``array_header``."""
    if not isinstance(stored, bytes):
        return False
    header = read_array_header(stored)
    if header is None or (header.descr, header.fortran, header.shape) != ("<i8", False, (length,)):
        return False
    return len(stored) - header.start == 8 * length


def _good_metrics(content: RecordDict) -> bool:
    """Whether the workflow will find the record that its older API wants, with plain numbers in it."""
    metrics = content.config_records.get("fitres.metrics")
    examples = content.metric_records.get("fitres.num_examples")
    status = content.config_records.get("fitres.status")
    if metrics is None or examples is None or status is None or "fitres.parameters" not in content.array_records:
        return False
    numbers = all(isinstance(value, float) and np.isfinite(value) for value in metrics.values())
    return numbers and examples.get("num_examples") == 1 and status.get("code") == 0 and "message" in status
