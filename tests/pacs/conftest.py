"""A listening node in this process, over a real store, and DCMTK's programs as its peers."""

import gc
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from hemoscope.pacs.node import DicomNode
from hemoscope.store.node_settings import Node, NodeSettings, Peer
from hemoscope.store.settings import Settings
from hemoscope.store.store import Store, open_store

MODALITY = Peer(ae_title="MODALITY", addresses=("127.0.0.1",))


@pytest.fixture(scope="module", autouse=True)
def sockets_of_pynetdicom() -> Iterator[None]:
    """Collect the sockets that pynetdicom leaves while their warnings are still ignored, not in another file's test."""
    yield
    gc.collect()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = open_store(Settings(storage=tmp_path / "store"))
    yield opened
    opened.close()


@pytest.fixture
def start_node(store: Store) -> Iterator[Callable[..., DicomNode]]:
    """``start_node(peers=..., quiet_seconds=...)``: a node that listens on a free port until the test ends."""
    with ExitStack() as running:

        def start(**settings: Any) -> DicomNode:
            return running.enter_context(node_of(store, **settings))

        yield start


def node_of(
    store: Store, *, peers: tuple[Peer, ...] = (MODALITY,), rules: Any = (), tls: Any = None, **node: Any
) -> DicomNode:
    """A node that is to listen on a free port; other options are those of its table."""
    whole = Node(**{"port": 0, "quiet_seconds": 0.5, **node})
    return DicomNode(store, NodeSettings(node=whole, peers=peers, rules=rules, tls=tls))


def dcmtk(
    program: Path, node: DicomNode, *options: object, files: tuple[Path, ...] = (), calling: str = "MODALITY"
) -> int:
    """Run one of DCMTK's programs against a node, and return its exit status."""
    host, port = node.address
    command = [program, "-aet", calling, "-aec", "HEMOSCOPE", *options, host, port, *files]
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=60, check=False)
    sys.stdout.write(done.stdout + done.stderr)
    return done.returncode
