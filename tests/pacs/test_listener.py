"""What reaches the node and what does not, and what a hostile peer cannot do."""

import resource
import socket
import struct
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from queue import Queue
from threading import Event
from time import monotonic, sleep
from typing import NoReturn

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian
from pynetdicom import AE
from pynetdicom.association import Association
from pynetdicom.sop_class import CTImageStorage, MRImageStorage, Verification

from hemoscope.pacs import node as node_module
from hemoscope.pacs import spool as spool_module
from hemoscope.pacs.association_server import BoundedAssociationServer
from hemoscope.pacs.node import DicomNode
from hemoscope.store.node_settings import Peer, Rule
from hemoscope.store.refusals import refusal
from hemoscope.store.store import Store
from hemoscope.store.values import StudySummary
from hemoscope.testing.ct_image import Acquisition
from hemoscope.testing.dicom_writer import write_series
from hemoscope.testing.phantom import make_phantom

from .conftest import dcmtk, node_of

# pynetdicom leaves the socket of a requestor that was rejected to the garbage collector.
pytestmark = pytest.mark.filterwarnings(
    "ignore:Exception ignored in. <socket.socket:pytest.PytestUnraisableExceptionWarning"
)
Start = Callable[..., DicomNode]
Tool = Callable[[str], Path]
WAIT_S = 60.0


def phantom(folder: Path, *, seed: int = 1, slices: int = 4, **writing: object) -> tuple[Path, ...]:
    return write_series(make_phantom(seed=2, shape=(slices, 64, 64)), folder, seed=seed, **writing)


def worklist(store: Store, count: int, *, files: int | None = None) -> tuple[StudySummary, ...]:
    """The worklist, once it holds so many studies."""
    end = monotonic() + WAIT_S
    while monotonic() < end:
        found, total = store.studies()
        if total >= count:
            return found
        sleep(0.05)
    pytest.fail(f"{count} studies were expected, the worklist holds {store.studies()[1]}")


def uploaded(store: Store) -> list[int]:
    """How many files each upload has, fewest first."""
    return sorted(len(list((folder / "source").glob("0*"))) for folder in store.folder.uploads())


@pytest.fixture
def associate() -> Iterator[Callable[..., Association]]:
    """``associate(node)``: an association as the modality, released at the end of the test."""
    with ExitStack() as running:

        def connect(node: DicomNode, *, calling: str = "MODALITY", called: str = "HEMOSCOPE") -> Association:
            entity = AE(ae_title=calling)
            for sop_class in (Verification, CTImageStorage, MRImageStorage):
                entity.add_requested_context(sop_class, ExplicitVRLittleEndian)
            association = entity.associate(*node.address, ae_title=called)
            running.callback(end, association)
            return association

        def end(association: Association) -> None:
            if association.is_established:
                association.release()
            elif association.dul.socket is not None and association.dul.socket.socket is not None:
                association.dul.socket.socket.close()

        yield connect


class TestArrival:
    @pytest.mark.reference_tool("dcmsend")
    def test_a_study_that_is_quiet_stands_in_the_worklist_once(
        self, start_node: Start, store: Store, tmp_path: Path, reference_tool: Tool
    ) -> None:
        node = start_node()
        phantom(tmp_path / "images")
        for _ in range(2):  # sent twice, as archives do
            assert dcmtk(reference_tool("dcmsend"), node, "+sd", files=(tmp_path / "images",)) == 0
        (summary,) = worklist(store, 1)
        assert summary.submitted_by == "PACS"
        assert uploaded(store) == [4]

    def test_late_images_make_the_whole_study_be_read_again(
        self, start_node: Start, store: Store, tmp_path: Path, associate: Callable[..., Association]
    ) -> None:
        association = associate(start_node())
        *early, late = phantom(tmp_path / "images")
        for path in early:
            assert association.send_c_store(dcmread(path)).Status == 0
        worklist(store, 1)
        assert association.send_c_store(dcmread(late)).Status == 0
        worklist(store, 2)
        assert uploaded(store) == [3, 4]

    def test_two_studies_are_two_uploads(
        self, start_node: Start, store: Store, tmp_path: Path, associate: Callable[..., Association]
    ) -> None:
        association = associate(start_node())
        images = [*phantom(tmp_path / "a", seed=1), *phantom(tmp_path / "b", seed=2)]
        for path in images[::2] + images[1::2]:
            assert association.send_c_store(dcmread(path)).Status == 0
        worklist(store, 2)
        assert uploaded(store) == [4, 4]

    def test_a_restart_hands_over_what_was_acknowledged(
        self, start_node: Start, store: Store, tmp_path: Path, associate: Callable[..., Association]
    ) -> None:
        with node_of(store, quiet_seconds=3600) as first:
            association = associate(first)
            for path in phantom(tmp_path / "images"):
                assert association.send_c_store(dcmread(path)).Status == 0
            association.release()
            assert store.studies()[1] == 0
        start_node()
        worklist(store, 1)
        assert uploaded(store) == [4]

    def test_received_files_are_deleted_after_the_time_for_late_ones(
        self, start_node: Start, store: Store, tmp_path: Path, associate: Callable[..., Association]
    ) -> None:
        association = associate(start_node(late_minutes=0))
        for path in phantom(tmp_path / "images"):
            assert association.send_c_store(dcmread(path)).Status == 0
        worklist(store, 1)
        end = monotonic() + WAIT_S
        while list((store.folder.root / ".received").iterdir()) and monotonic() < end:
            sleep(0.05)
        assert not list((store.folder.root / ".received").iterdir())

    def test_rules_leave_series_out(
        self, start_node: Start, store: Store, tmp_path: Path, associate: Callable[..., Association]
    ) -> None:
        rules = (Rule(action="read", description="soft"), Rule(action="ignore", calling_ae_title="MODALITY"))
        association = associate(start_node(rules=rules))
        for number, name in enumerate(("Head SOFT", "Head bone"), 1):
            acquisition = Acquisition(series_description=name, series_number=number)
            for path in phantom(tmp_path / name, acquisition=acquisition):
                assert association.send_c_store(dcmread(path)).Status == 0
        worklist(store, 1)
        assert uploaded(store) == [4]


class TestRefusal:
    def test_other_classes_are_not_negotiated(self, start_node: Start, associate: Callable[..., Association]) -> None:
        association = associate(start_node())
        assert {context.abstract_syntax for context in association.accepted_contexts} == {Verification, CTImageStorage}

    def test_of_a_header_no_more_is_parsed_than_names_the_image(
        self, start_node: Start, tmp_path: Path, associate: Callable[..., Association], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Items cost memory and time of all associations; what follows the UIDs is left to workers."""
        monkeypatch.setattr(node_module, "MOST_HEADER_ELEMENTS", 100)
        association = associate(start_node())
        (path,) = phantom(tmp_path / "images", slices=1)
        for tag, status in ((0x00091001, 0xC000), (0x00411001, 0)):
            image = dcmread(path)
            image.add_new(tag, "SQ", [Dataset() for _ in range(400)])
            image[tag].is_undefined_length = True
            assert association.send_c_store(image).Status == status

    def test_deflated_images_are_not_negotiated(self, start_node: Start) -> None:
        """They would be inflated in the listener: a thousand times what the limit on messages lets in."""
        entity = AE(ae_title="MODALITY")
        entity.add_requested_context(CTImageStorage, DeflatedExplicitVRLittleEndian)
        entity.add_requested_context(Verification)
        association = entity.associate(*start_node().address, ae_title="HEMOSCOPE")
        accepted = {context.abstract_syntax for context in association.accepted_contexts}
        association.release()
        assert accepted == {Verification}

    @pytest.mark.parametrize(
        ("calling", "called", "said"),
        [
            ("STRANGER", "HEMOSCOPE", "'STRANGER' is the AE title of no peer"),
            ("MODALITY", "OTHER", "it calls 'OTHER', and this node is 'HEMOSCOPE'"),
        ],
    )
    def test_unknown_titles_are_rejected_and_the_log_says_so(
        self,
        start_node: Start,
        associate: Callable[..., Association],
        caplog: pytest.LogCaptureFixture,
        calling: str,
        called: str,
        said: str,
    ) -> None:
        assert associate(start_node(), calling=calling, called=called).is_rejected
        end = monotonic() + WAIT_S
        while said not in caplog.text and monotonic() < end:
            sleep(0.05)
        assert said in caplog.text

    def test_a_known_title_from_the_address_of_another_peer_is_aborted(
        self, start_node: Start, associate: Callable[..., Association]
    ) -> None:
        peers = (Peer(ae_title="CT2", addresses=("127.0.0.0/8",)), Peer(ae_title="MODALITY", addresses=("192.0.2.7",)))
        assert not associate(start_node(peers=peers)).is_established

    def test_one_association_too_many_is_rejected(
        self, start_node: Start, associate: Callable[..., Association], caplog: pytest.LogCaptureFixture
    ) -> None:
        node = start_node(most_associations=2)
        assert associate(node, calling="STRANGER").is_rejected, "which takes no place"
        first = [associate(node) for _ in range(2)]
        assert associate(node).is_rejected
        assert "most_associations" in caplog.text
        assert [one.send_c_echo().Status for one in first] == [0, 0]

    def test_an_unknown_address_is_closed_at_once(self, start_node: Start) -> None:
        node = start_node(peers=(Peer(ae_title="MODALITY", addresses=("192.0.2.0/24",)),))
        with socket.create_connection(node.address, timeout=WAIT_S) as connection:
            assert connection.recv(1) == b""

    def test_an_image_whose_uids_are_not_those_of_the_request_is_refused(
        self, start_node: Start, tmp_path: Path, associate: Callable[..., Association]
    ) -> None:
        association = associate(start_node())
        (path,) = phantom(tmp_path / "images", slices=1)
        image = dcmread(path)
        image.StudyInstanceUID = ""
        assert association.send_c_store(image).Status == 0xC000

    @pytest.mark.parametrize("keyword", ["StudyInstanceUID", "SOPInstanceUID"])
    @pytest.mark.parametrize("uid", ["=1+1", "../../x", "1.2.A", '1,"2'])
    @pytest.mark.filterwarnings("ignore:Invalid value for VR UI:UserWarning")
    def test_an_image_whose_uids_are_none_is_refused(
        self, start_node: Start, tmp_path: Path, associate: Callable[..., Association], keyword: str, uid: str
    ) -> None:
        association = associate(start_node())
        (path,) = phantom(tmp_path / "images", slices=1)
        image = dcmread(path)
        setattr(image, keyword, uid)
        assert association.send_c_store(image).Status == 0xC000

    def test_a_full_disk_is_said_and_nothing_is_left(
        self,
        start_node: Start,
        store: Store,
        tmp_path: Path,
        associate: Callable[..., Association],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        association = associate(start_node())
        (path, *_) = phantom(tmp_path / "images")

        def full(*_arguments: object, **_options: object) -> None:
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as broken:
            broken.setattr(spool_module, "write_bytes", full)
            assert association.send_c_store(dcmread(path)).Status == 0xA700
        assert association.send_c_store(dcmread(path)).Status == 0
        worklist(store, 1)

    def test_an_echo_fails_while_the_store_is_away(
        self,
        start_node: Start,
        store: Store,
        associate: Callable[..., Association],
    ) -> None:
        association = associate(start_node())
        assert association.send_c_echo().Status == 0
        (store.folder.root / ".store-id").unlink()
        assert association.send_c_echo().Status == 0x0110

    def test_an_echo_fails_while_studies_cannot_be_handed_over(
        self,
        start_node: Start,
        store: Store,
        tmp_path: Path,
        associate: Callable[..., Association],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        association = associate(start_node())

        def full() -> NoReturn:
            raise refusal("storage_full", "the disk is full")

        with monkeypatch.context() as broken:
            broken.setattr(store, "begin_upload", full)
            for path in phantom(tmp_path / "images"):
                assert association.send_c_store(dcmread(path)).Status == 0
            assert echo_until(association, 0x0110)
        assert echo_until(association, 0x0000)
        worklist(store, 1)


def echo_until(association: Association, status: int) -> bool:
    """Whether an echo has this status before long."""
    end = monotonic() + WAIT_S
    while (found := association.send_c_echo().Status) != status and monotonic() < end:
        sleep(0.05)
    return bool(found == status)


def test_the_listener_outlives_an_error_of_its_own_loop(
    start_node: Start, associate: Callable[..., Association], monkeypatch: pytest.MonkeyPatch
) -> None:
    failed = Event()

    def fail(server: BoundedAssociationServer) -> None:
        if not failed.is_set():
            failed.set()
            raise RuntimeError

    monkeypatch.setattr(BoundedAssociationServer, "service_actions", fail)
    node = start_node()
    assert failed.wait(WAIT_S)
    assert associate(node).send_c_echo().Status == 0


def test_a_connection_that_both_threads_of_pynetdicom_end_at_once_is_no_error(
    start_node: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One looks whether the socket is there and ends it, and the other has set it to None in between."""
    served: Queue[BoundedAssociationServer] = Queue()

    def note(server: BoundedAssociationServer) -> None:
        served.put(server)

    monkeypatch.setattr(BoundedAssociationServer, "service_actions", note)
    start_node()
    served.get(timeout=WAIT_S).shutdown_request(None)


class TestHostilePeers:
    def test_many_requests_at_once_get_no_more_places_than_there_are(
        self, start_node: Start, associate: Callable[..., Association]
    ) -> None:
        node = start_node(most_associations=2)
        with ThreadPoolExecutor(8) as pool:
            made = list(pool.map(lambda _: associate(node), range(8)))
        assert sum(one.is_established for one in made) == 2
        assert sum(one.is_rejected for one in made) == 6

    def test_idle_connections_keep_nobody_out(self, start_node: Start, associate: Callable[..., Association]) -> None:
        node = start_node()
        with ExitStack() as idle:
            for _ in range(20):
                idle.enter_context(socket.create_connection(node.address, timeout=WAIT_S))
            assert associate(node).send_c_echo().Status == 0

    def test_a_long_pdu_ends_its_connection_before_it_is_read(self, start_node: Start) -> None:
        node = start_node()
        payload = bytes(300 << 20)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        with socket.create_connection(node.address, timeout=WAIT_S) as connection:
            connection.sendall(struct.pack(">BxI", 1, 0xFFFFFFFF))
            with pytest.raises(OSError):  # noqa: PT011 - reset or broken pipe
                connection.sendall(payload)
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 8 << 10

    def test_a_message_without_end_ends_its_connection(
        self,
        start_node: Start,
        tmp_path: Path,
        associate: Callable[..., Association],
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        association = associate(start_node(most_image_mib=1))
        (path,) = phantom(tmp_path / "images", slices=1)
        image = dcmread(path)
        image.PixelData = bytes(3 << 20)
        assert "Status" not in association.send_c_store(image)
        assert "longer than most_image_mib" in caplog.text

    @pytest.mark.parametrize("sent", [b"", b"GET / HTTP/1.1\r\n\r\n", struct.pack(">BxI", 9, 4) + bytes(4)])
    def test_a_connection_that_is_no_association_ends_by_itself(self, start_node: Start, sent: bytes) -> None:
        node = start_node(negotiation_seconds=1)
        with socket.create_connection(node.address, timeout=WAIT_S) as connection:
            connection.sendall(sent)
            while connection.recv(1 << 10):
                pass
