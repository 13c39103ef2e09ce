"""A model bundle: one folder with ONNX graphs and ``card.json``, verified on loading.

``model.onnx`` scores a slice, the optional ``model-int8.onnx`` does it in integers, and the optional ``sequence.onnx``
refines the scores over all slices of a series. The card
lists the SHA-256 of every other file, so the card's hash identifies the whole bundle; ``SHA256SUMS`` has that hash, to
find a damaged card. The folder holds only those files: an unlisted graph is refused, because it was not validated.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

from hemoscope.checksums import SUMS, read_sums, sums_text, warn_unchecked
from hemoscope.errors import BundleError
from hemoscope.files import atomic_folder
from hemoscope.inference.card import ModelCard
from hemoscope.inference.external_data import external_tensors

__all__ = [
    "CARD",
    "DEFAULT_BUNDLE",
    "GRAPH",
    "GRAPH_INT8",
    "SEQUENCE",
    "ModelBundle",
    "ModelCard",
    "load_bundle",
    "write_bundle",
]

CARD = "card.json"
GRAPH = "model.onnx"
GRAPH_INT8 = "model-int8.onnx"
SEQUENCE = "sequence.onnx"
DEFAULT_BUNDLE = Path(__file__).parents[1] / "bundles" / "default"

_CARD_BYTES = 1 << 20
_FILE_BYTES = 1 << 30
# Plain names only (no folder, drive or hidden file), so that no name points outside the bundle.
_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*(\.[A-Za-z0-9_-]+)*")
_GRAPHS = frozenset({GRAPH, GRAPH_INT8, SEQUENCE})
_GRAPH_SUFFIXES = (".onnx", ".xml", ".bin", ".pb", ".pt", ".pth")
_EXPORT_AGAIN = "Export the model again, or reinstall Hemoscope if this is the default bundle"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelBundle:
    """A verified bundle. ``sha256`` is that of the card, which lists those of the other files."""

    folder: Path
    card: ModelCard
    sha256: str

    def read_graph(self) -> bytes:
        """Return the ONNX graph, verified when read, so that the verified graph is the one that runs.

        Raises:
            BundleError: the file has changed since the bundle was loaded.
        """
        return self.read_file(GRAPH)

    @property
    def has_int8(self) -> bool:
        """Whether there is a graph in int8 too."""
        return GRAPH_INT8 in self.card.files

    def read_sequence(self) -> bytes | None:
        """Return the sequence graph, verified as in :meth:`read_graph`; None if there is none."""
        return self.read_file(SEQUENCE) if SEQUENCE in self.card.files else None

    def read_file(self, name: str) -> bytes:
        """Return one of the files that the card lists, verified as in :meth:`read_graph`."""
        return _read_verified(self.folder, name, self.card.files[name])


def load_bundle(path: Path | None = None) -> ModelBundle:
    """Load a bundle and verify all files; None is the bundle that ships with the package.

    Raises:
        BundleError: the folder, the card or a file violates the format; the message names file and remedy.
    """
    folder = DEFAULT_BUNDLE if path is None else path
    if not folder.is_dir():
        remedy = "Give the folder of a model bundle, or none for the default model" if path else _EXPORT_AGAIN
        _refuse(folder.name, "no such folder", remedy)
    content = _read_limited(folder, CARD, _CARD_BYTES)
    digest = hashlib.sha256(content).hexdigest()
    card = _parse_card(content)
    _check_files(card.files, present={entry.name for entry in folder.iterdir()} - {SUMS})
    _check_card(folder, digest)
    _check_sequence(card)
    for name, expected in card.files.items():
        whole = _read_verified(folder, name, expected)
        if name in _GRAPHS:
            # Once is enough: whatever is read later has the same hash.
            _check_whole(name, whole)
    return ModelBundle(folder=folder, card=card, sha256=digest)


def write_bundle(
    folder: Path,
    card: ModelCard,
    graph: bytes,
    files: Mapping[str, bytes] | None = None,
    *,
    sequence: bytes | None = None,
    int8: bytes | None = None,
) -> ModelBundle:
    """Write a bundle atomically, fill in the hashes, and load it back.

    Args:
        folder: of the bundle; must not exist.
        card: content of ``card.json``; its ``files`` are replaced.
        graph: the ONNX graph.
        files: further files, such as the licence of the weights.
        sequence: the sequence graph, if the card has a ``sequence``.
        int8: the graph in int8, if there is one.

    Raises:
        BundleError: the folder exists, or the bundle could not be loaded back.
    """
    if folder.exists():
        _refuse(folder.name, "exists already", "Remove it first, or choose another folder")
    graphs = {GRAPH: graph, SEQUENCE: sequence, GRAPH_INT8: int8}
    contents = {**(files or {}), **{name: content for name, content in graphs.items() if content is not None}}
    hashes = {name: hashlib.sha256(content).hexdigest() for name, content in sorted(contents.items())}
    _check_files(hashes, present={*hashes, CARD})
    text = json.dumps(replace(card, files=hashes).to_json(), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    folder.parent.mkdir(parents=True, exist_ok=True)
    sums = sums_text({CARD: hashlib.sha256(text.encode()).hexdigest()})
    with atomic_folder(folder) as draft:
        for name, content in {**contents, CARD: text.encode(), SUMS: sums.encode()}.items():
            (draft / name).write_bytes(content)
        load_bundle(draft)
    return load_bundle(folder)


def _check_card(folder: Path, digest: str) -> None:
    sums = read_sums(folder / SUMS)
    if sums is None:
        warn_unchecked(f"The card of the model bundle {folder.name}", "Export the model again to have it checked")
    elif sums.get(CARD) != digest:
        _refuse(CARD, f"its SHA-256 is not that in {SUMS}: it was damaged or changed", _EXPORT_AGAIN)


def _parse_card(content: bytes) -> ModelCard:
    try:
        return ModelCard.from_json(json.loads(content, object_pairs_hook=_unique, parse_constant=_no_constant))
    except RecursionError:
        _refuse(CARD, "nested too deeply", _EXPORT_AGAIN)
    except ValueError as error:  # JSONDecodeError and UnicodeDecodeError are ValueErrors
        _refuse(CARD, str(error), _EXPORT_AGAIN, error)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Refuse duplicate keys, of which JSON would silently keep the last."""
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        msg = f"the key {next(name for name in names if names.count(name) > 1)} occurs twice"
        raise ValueError(msg)
    return found


def _no_constant(name: str) -> NoReturn:
    msg = f"{name} is not a number in JSON"
    raise ValueError(msg)


def _check_files(files: Mapping[str, str], *, present: set[str]) -> None:
    """Check names and graphs before building paths from them, then that the folder holds exactly these files."""
    for name in files:
        if not _FILE_NAME.fullmatch(name) or name == CARD:
            _refuse(CARD, f"lists a file named {name!r:.60}", "File names must be plain, without folders")
        if name not in _GRAPHS and name.endswith(_GRAPH_SUFFIXES):
            runs = f"this version runs only {', '.join(sorted(_GRAPHS))}"
            _refuse(name, runs, "Use a newer Hemoscope, or remove the graph")
    if GRAPH not in files:
        _refuse(CARD, f"lists no {GRAPH}", _EXPORT_AGAIN)
    if missing := sorted({*files, CARD} - present):
        _refuse(missing[0], "is listed in the card but is missing", _EXPORT_AGAIN)
    if extra := sorted(present - {*files, CARD}):
        _refuse(extra[0], "is not listed in the card", "Remove it from the bundle's folder")


def _check_sequence(card: ModelCard) -> None:
    """Refuse a sequence graph without settings in the card, and settings without a graph."""
    if (SEQUENCE in card.files) == (card.sequence is not None):
        return
    if card.sequence is None:
        _refuse(SEQUENCE, "the card has no settings for it: it has no sequence", _EXPORT_AGAIN)
    _refuse(CARD, f"has a sequence, but lists no {SEQUENCE}", _EXPORT_AGAIN)


def _read_verified(folder: Path, name: str, expected: str) -> bytes:
    content = _read_limited(folder, name, _FILE_BYTES)
    found = hashlib.sha256(content).hexdigest()
    if found != expected:
        _refuse(name, f"SHA-256 is {found}, the card says {expected}", _EXPORT_AGAIN)
    return content


def _check_whole(name: str, graph: bytes) -> None:
    """Refuse a graph that is not whole: what runs is what was hashed, and nothing else."""
    try:
        outside = next(external_tensors(graph), None)
    except ValueError as error:
        _refuse(name, f"cannot be run: {error}", _EXPORT_AGAIN, error)
    if outside is not None:
        reason = f"keeps the tensor {outside!r} in another file (external data), which no hash covers"
        _refuse(name, reason, "Export the model again with all tensors in the graph")


def _read_limited(folder: Path, name: str, limit: int) -> bytes:
    """Read a regular file of the folder, at most ``limit`` bytes of it."""
    path = folder / name
    if not path.is_file():
        _refuse(name, "the bundle has no such file", "Give the folder that holds card.json and model.onnx")
    with path.open("rb") as file:
        # Python reserves as much memory as it is asked to read: not the limit for a small file.
        content = file.read(min(path.stat().st_size, limit) + 1)
    if len(content) > limit:
        _refuse(name, f"is larger than {limit} bytes", _EXPORT_AGAIN)
    return content


def _refuse(name: str, reason: str, remedy: str, cause: Exception | None = None) -> NoReturn:
    msg = f"model bundle: {name}: {reason}. {remedy}"
    raise BundleError(msg) from cause
