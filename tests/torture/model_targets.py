"""Model bundles and what federated sites send as targets of fuzzing."""

import hashlib
import io
import json
from pathlib import Path

from . import mutation
from .target import REPOSITORY, Target


def _bundle_seeds(folder: Path) -> list[bytes]:
    from ..tiny_model import write_tiny_bundle

    bundle = write_tiny_bundle(folder / "tiny")
    return [(bundle.folder / "card.json").read_bytes(), _shipped_card()]


def _shipped_card() -> bytes:
    return (REPOSITORY / "src/hemoscope/bundles/default/card.json").read_bytes()


def _card(data: bytes, folder: Path) -> None:
    """Read a card as that of a bundle, and write and read it again if it is one."""
    from hemoscope.inference.bundle import load_bundle

    bundle = folder / "bundle"
    bundle.mkdir(exist_ok=True)
    (bundle / "model.onnx").write_bytes(b"graph")
    (bundle / "card.json").write_bytes(data.replace(_hash_in(data), hashlib.sha256(b"graph").hexdigest().encode()))
    card = load_bundle(bundle).card
    assert type(card).from_json(json.loads(json.dumps(card.to_json()))) == card, "a card is read back as another"


def _hash_in(data: bytes) -> bytes:
    """The hash that a seed's card gives for its graph, so that mutants are not all refused for that of the stub."""
    start = data.find(b'"model.onnx": "')
    return data[start + 15 : start + 79] if start >= 0 else b"\xff\xff no such text"


def _graph_seeds(_folder: Path) -> list[bytes]:
    from ..tiny_model import tiny_graph

    return [tiny_graph()]


def _graph(data: bytes, folder: Path) -> None:
    """Load a bundle whose graph is damaged and whose card knows it, and run it if it compiles."""
    import numpy as np

    from hemoscope.inference.bundle import load_bundle
    from hemoscope.inference.engine import Engine

    from ..tiny_model import TINY_SIZE, tiny_card

    bundle = folder / "bundle"
    bundle.mkdir(exist_ok=True)
    (bundle / "model.onnx").write_bytes(data)
    card = tiny_card(files={"model.onnx": hashlib.sha256(data).hexdigest()})
    (bundle / "card.json").write_text(json.dumps(card.to_json()))
    Engine(load_bundle(bundle), threads=1).run([np.zeros((3, TINY_SIZE, TINY_SIZE), np.float32)], maps=True)


def _array_header_seeds(_folder: Path) -> list[bytes]:
    import numpy as np

    found = []
    for array in (np.zeros((2, 3), np.float32), np.zeros((), np.float64), np.asfortranarray(np.zeros((4, 5), "<f4"))):
        stream = io.BytesIO()
        np.save(stream, array, allow_pickle=False)
        found.append(stream.getvalue())
    return found


def _array_header(data: bytes, _folder: Path) -> None:
    """What is read as a header is what numpy reads: the same type, shape and start."""
    import numpy as np

    from hemoscope.federated.exchange.array_header import read_array_header

    found = read_array_header(data)
    if found is not None:
        stream = io.BytesIO(data)
        version = np.lib.format.read_magic(stream)
        assert version == (1, 0)
        try:
            shape, fortran, dtype = np.lib.format.read_array_header_1_0(stream)
        except ValueError:  # a type that numpy does not know: the caller compares it with the one expected
            return
        assert (shape, fortran) == (found.shape, found.fortran)
        assert (dtype, stream.tell()) == (np.dtype(found.descr), found.start)


def _histogram_seeds(_folder: Path) -> list[bytes]:
    import numpy as np

    from hemoscope.federated.exchange.histograms import LevelScores, score_histograms

    random_ = np.random.default_rng(0)
    truth = (random_.random((200, 6)) < 0.3).astype(float)
    scores = LevelScores(
        logits=random_.normal(size=(200, 6)) + truth, truth=truth, patients=tuple(f"p{row // 4}" for row in range(200))
    )
    return [score_histograms(scores, level="slice", least_cell=5).to_json().encode()]


def _histograms(data: bytes, _folder: Path) -> None:
    from hemoscope.federated.exchange.histograms import parse_histograms

    parse_histograms(data.decode("utf-8", "surrogateescape"))


TARGETS = {
    "model cards": Target(seeds=_bundle_seeds, run=_card, mutate=mutation.mutate_json, weight=2),
    "model graphs": Target(seeds=_graph_seeds, run=_graph, guided=False),
    "federated arrays": Target(seeds=_array_header_seeds, run=_array_header),
    "federated histograms": Target(seeds=_histogram_seeds, run=_histograms, mutate=mutation.mutate_json),
}
