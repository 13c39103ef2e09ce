"""The model that a federation's server leaves behind, as a site receives it to make it its own.

Three files of the server's folder suffice: ``federation.json``, ``split/part.json`` and ``split/weights.safetensors``.
"""

import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from hemoscope.errors import FederationError
from hemoscope.federated.settings.federation import Federation, parse_federation
from hemoscope.inference.card import FederationRecord, parse_dataclass
from hemoscope.training.data_splits import SPLIT

FEDERATION, WEIGHTS, RECORD = "federation.json", "weights.safetensors", "part.json"
_UNKNOWN_HERE = ("patients", "slices", "personalised")


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedModel:
    """What sites trained together: how, with what weights, and what a card says of it."""

    federation: Federation
    weights: Path
    record: FederationRecord


def read_model(run: Path) -> SharedModel:
    """Read a finished federation of one split.

    Args:
        run: the folder that the server wrote, or a copy of the three files.

    Raises:
        FederationError: a file is absent or damaged.
        ConfigError: the federation's settings are none that this version knows.
    """
    needed = [run / FEDERATION, run / SPLIT / RECORD, run / SPLIT / WEIGHTS]
    absent = [path.relative_to(run).as_posix() for path in needed if not path.is_file()]
    if absent:
        remedy = "Give the folder that the server wrote for a finished federation of one split by patient"
        msg = f"{run.name} lacks {', '.join(absent)}. {remedy}"
        raise FederationError(msg)
    return SharedModel(
        federation=parse_federation(needed[0].read_text(), where=FEDERATION),
        weights=needed[2],
        record=read_record(needed[1], personalised=True),
    )


def read_record(path: Path, *, personalised: bool) -> FederationRecord:
    """What a card says of the training, from the server's record of a part; it names no site.

    Raises:
        FederationError: the record is damaged.
    """
    names = [item.name for item in fields(FederationRecord) if item.name not in _UNKNOWN_HERE]
    try:
        stored: dict[str, Any] = json.loads(path.read_text())
        known = {name: stored[name] for name in names} | dict.fromkeys(("patients", "slices"))
        return parse_dataclass(FederationRecord, {**known, "personalised": personalised}, where=path.name)
    except (ValueError, KeyError, TypeError) as error:
        where = f"{path.parent.name}/{path.name}"
        msg = f"{where} does not say how the model was trained ({type(error).__name__}). Copy it again"
        raise FederationError(msg) from error
