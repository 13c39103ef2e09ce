"""A listening node in this process, over a real store, and DCMTK's programs as its peers."""

import gc
import secrets
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from hemoscope.inference.predictor import Predictor
from hemoscope.pacs.node import DicomNode
from hemoscope.reports.report import model_identity
from hemoscope.store.node_settings import Node, NodeSettings, Peer, ResultOptions
from hemoscope.store.outgoing import OutgoingResults
from hemoscope.store.reading import UploadReader
from hemoscope.store.settings import Settings
from hemoscope.store.store import Store, open_store
from hemoscope.store.worker import work_once
from hemoscope.testing.dicom_writer import write_series
from hemoscope.testing.phantom import make_phantom

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


class Site:
    """A store, a reader of uploads that makes results, and a node that sends them."""

    def __init__(self, store: Store, predictor: Predictor, **settings: Any) -> None:
        peers = (Peer(ae_title="ARCHIVE", addresses=("127.0.0.1",)),)
        self.store = store
        self.worker = secrets.token_hex(16)
        store.jobs.join(self.worker, host="test", pid=1)
        # The phantoms of these tests are no whole heads.
        settings.setdefault("results", ResultOptions(hold_incomplete_seconds=0))
        self.settings = NodeSettings(node=Node(port=0), peers=peers, **settings)
        outgoing = OutgoingResults(
            store.outbox,
            self.settings,
            card=predictor.bundle.card,
            model=model_identity(predictor.bundle, predictor.engine.precision),
        )
        self.reader = UploadReader(store, predictor, keep_identity=False, deidentify=False, outgoing=outgoing)

    def read(self, folder: Path, **received: str) -> str:
        """Upload a folder and read it; return the id of its study. ``received``: as the node gives it."""
        study_id = self.upload(folder, **received)
        assert self.work()
        assert self.store.get(study_id).state == "done"
        return study_id

    def upload(self, folder: Path, **received: str) -> str:
        with self.store.begin_upload() as upload:
            for path in sorted(folder.iterdir()):
                with path.open("rb") as stream:
                    upload.add_file(stream)
            return self.store.accept(upload, submitted_by="test", **received).study_id

    def work(self) -> bool:
        """Read an upload that waits."""
        return work_once(self.store, self.reader, self.worker, _NoHeartbeat())


class _NoHeartbeat:
    def hold(self, _job: object) -> None: ...


@pytest.fixture
def images(tmp_path: Path) -> Path:
    write_series(make_phantom(seed=2, shape=(4, 64, 64)), tmp_path / "images")
    return tmp_path / "images"


def files(store: Store) -> list[Path]:
    return list(store.outbox.folder.glob("*.dcm"))
