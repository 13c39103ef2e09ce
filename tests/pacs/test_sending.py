"""From a study that is read to objects in an archive: once, in time, and never lost."""

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from datetime import timedelta
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pynetdicom import AE, evt
from pynetdicom.presentation import build_role
from pynetdicom.sop_class import (
    Comprehensive3DSRStorage,
    KeyObjectSelectionDocumentStorage,
    MultiFrameTrueColorSecondaryCaptureImageStorage,
    StorageCommitmentPushModel,
    StorageCommitmentPushModelInstance,
)

from hemoscope.inference.predictor import Predictor
from hemoscope.pacs.arrivals import longest_hold_s
from hemoscope.pacs.node import DicomNode
from hemoscope.store import outbox as outbox_module
from hemoscope.store import outbox_of_readings
from hemoscope.store.node_settings import Destination, Node, NodeSettings
from hemoscope.store.store import Store
from hemoscope.testing.dicom_writer import save

from .conftest import Site, files

# pynetdicom leaves the socket of an association that failed to the garbage collector.
pytestmark = pytest.mark.filterwarnings(
    "ignore:Exception ignored in. <socket.socket:pytest.PytestUnraisableExceptionWarning"
)
WAIT_S = 60.0
CLASSES = (
    Comprehensive3DSRStorage,
    MultiFrameTrueColorSecondaryCaptureImageStorage,
    KeyObjectSelectionDocumentStorage,
)


class Archive:
    """A storage SCP that keeps what it gets; ``status`` is what it answers, ``node`` whom it reports commitment to."""

    def __init__(self, port: int = 0, classes: tuple[str, ...] = CLASSES) -> None:
        self.received: list[Dataset] = []
        self.transactions: list[str] = []
        self.status = 0x0000
        self.commits = True
        self.node: tuple[str, int] | None = None
        self._entity = AE(ae_title="ARCHIVE")
        for sop_class in classes:
            self._entity.add_supported_context(sop_class)
        self._entity.add_supported_context(StorageCommitmentPushModel)
        handlers = [(evt.EVT_C_STORE, self._store), (evt.EVT_N_ACTION, self._asked)]
        server = self._entity.start_server(("127.0.0.1", port), block=False, evt_handlers=handlers)
        assert server is not None
        self.port = server.server_address[1]

    def stop(self) -> None:
        self._entity.shutdown()

    def _store(self, event: evt.Event) -> int:
        if self.status == 0x0000:
            self.received.append(event.dataset)
        return self.status

    def _asked(self, event: evt.Event) -> tuple[int, None]:
        self.transactions.append(event.action_information.TransactionUID)
        threading.Thread(target=self._report, args=(event.action_information,)).start()
        return 0x0000, None

    def _report(self, asked: Dataset) -> None:
        assert self.node is not None
        entity = AE(ae_title="ARCHIVE")
        entity.add_requested_context(StorageCommitmentPushModel)
        role = build_role(StorageCommitmentPushModel, scp_role=True)
        association = entity.associate(*self.node, ae_title="HEMOSCOPE", ext_neg=[role])
        report = Dataset()
        report.TransactionUID = asked.TransactionUID
        if self.commits:
            report.ReferencedSOPSequence = asked.ReferencedSOPSequence
        else:
            report.FailedSOPSequence = asked.ReferencedSOPSequence
        kind = 1 if self.commits else 2
        with suppress(RuntimeError):  # a node that has ended
            association.send_n_event_report(
                report, kind, StorageCommitmentPushModel, StorageCommitmentPushModelInstance
            )
            association.release()


@pytest.fixture
def archive() -> Iterator[Archive]:
    running = Archive()
    yield running
    running.stop()


@pytest.fixture
def make_site(store: Store, predictor: Predictor, archive: Archive) -> Callable[..., Site]:
    def make(**destination: Any) -> Site:
        whole = {"name": "archive", "ae_title": "ARCHIVE", "host": "127.0.0.1", "port": archive.port}
        return Site(store, predictor, destinations=(Destination(**{**whole, **destination}),))

    return make


@pytest.fixture
def running(archive: Archive) -> Iterator[Callable[[Site], DicomNode]]:
    with ExitStack() as nodes:

        def run(site: Site) -> DicomNode:
            node = nodes.enter_context(DicomNode(site.store, site.settings))
            archive.node = node.address
            return node

        yield run


def settled(store: Store, **wanted: int) -> dict[str, int]:
    """The outbox's counts, once they are those."""
    end = monotonic() + WAIT_S
    while monotonic() < end:
        counts = store.outbox.counts()
        if all(counts[state] == count for state, count in wanted.items()):
            return counts
        sleep(0.05)
    pytest.fail(f"expected {wanted}, the outbox has {store.outbox.counts()}")


def left(store: Store, count: int) -> int:
    """How many files there are, once there are so many, or after the wait: a file goes after its row has changed."""
    end = monotonic() + WAIT_S
    while len(files(store)) != count and monotonic() < end:
        sleep(0.05)
    return len(files(store))


def test_a_study_that_was_read_reaches_the_archive_with_its_identity(
    make_site: Callable[..., Site], running: Callable[[Site], DicomNode], archive: Archive, images: Path
) -> None:
    site = make_site()
    site.read(images)
    source = dcmread(next(images.iterdir()))
    made = len(files(site.store))
    assert made in (2, 3)
    running(site)
    settled(site.store, delivered=made)
    assert {one.SOPClassUID for one in archive.received} <= set(CLASSES)
    assert {one.StudyInstanceUID for one in archive.received} == {source.StudyInstanceUID}
    assert {one.PatientID for one in archive.received} == {source.PatientID}
    assert left(site.store, 0) == 0


def test_nothing_is_made_without_a_destination_that_wants_it(make_site: Callable[..., Site], images: Path) -> None:
    site = make_site(outputs=())
    site.read(images)
    assert files(site.store) == []


def test_the_same_study_read_twice_is_sent_once(
    make_site: Callable[..., Site], running: Callable[[Site], DicomNode], archive: Archive, images: Path
) -> None:
    site = make_site(outputs=("report",))
    running(site)
    for _ in range(2):
        site.read(images)
    settled(site.store, delivered=1, queued=0)
    assert len(archive.received) == 1


def test_a_later_reading_names_the_earlier_report(
    make_site: Callable[..., Site], running: Callable[[Site], DicomNode], archive: Archive, images: Path
) -> None:
    site = make_site(outputs=("report",))
    site.read(images)
    running(site)
    settled(site.store, delivered=1)
    sorted(images.iterdir())[0].unlink()  # another series of images, another result
    site.read(images)
    settled(site.store, delivered=2)
    first, second = archive.received
    (study,) = second.PredecessorDocumentsSequence
    reference = study.ReferencedSeriesSequence[0].ReferencedSOPSequence[0]
    assert reference.ReferencedSOPInstanceUID == first.SOPInstanceUID
    assert "PredecessorDocumentsSequence" not in first


def test_an_archive_that_is_away_gets_everything_when_it_is_back(
    make_site: Callable[..., Site], running: Callable[[Site], DicomNode], archive: Archive, images: Path
) -> None:
    site = make_site(outputs=("report",))
    archive.stop()
    site.read(images)
    node = running(site)
    settled(site.store, queued=1)
    assert node.fault() is None
    again = Archive(archive.port)
    try:
        settled(site.store, delivered=1)
        assert len(again.received) == 1
    finally:
        again.stop()


def test_what_a_killed_node_was_sending_is_sent_at_the_next_start(
    make_site: Callable[..., Site], running: Callable[[Site], DicomNode], archive: Archive, images: Path
) -> None:
    site = make_site(outputs=("report",))
    site.read(images)
    assert len(site.store.outbox.claim("archive")) == 1  # and then SIGKILL
    running(site)
    settled(site.store, delivered=1)
    assert len(archive.received) == 1


def test_a_refused_object_is_tried_again(
    make_site: Callable[..., Site], running: Callable[[Site], DicomNode], archive: Archive, images: Path
) -> None:
    site = make_site(outputs=("report",))
    archive.status = 0xA700
    site.read(images)
    running(site)
    end = monotonic() + WAIT_S
    while not (claimed := site.store.outbox.counts())["queued"] and monotonic() < end:
        sleep(0.05)
    assert claimed["delivered"] == 0
    archive.status = 0xB007  # a warning: stored
    settled(site.store, delivered=1)


@pytest.mark.parametrize(("commits", "state"), [(True, "delivered"), (False, "queued")])
def test_delivered_means_committed_where_commitment_is_asked(
    make_site: Callable[..., Site],
    running: Callable[[Site], DicomNode],
    archive: Archive,
    images: Path,
    commits: bool,
    state: str,
) -> None:
    site = make_site(outputs=("report",), commitment=True)
    archive.commits = commits
    site.read(images)
    running(site)
    end = monotonic() + WAIT_S
    while not archive.received and monotonic() < end:
        sleep(0.05)
    settled(site.store, **{state: 1})
    expected = 0 if commits else 1
    assert left(site.store, expected) == expected


@pytest.mark.filterwarnings("ignore:Invalid value for VR UI")
def test_images_without_valid_uids_are_read_without_results(make_site: Callable[..., Site], images: Path) -> None:
    for path in images.iterdir():
        data_set = dcmread(path)
        data_set.StudyInstanceUID = "ID_1"
        save(data_set, path)
    site = make_site()
    site.read(images)
    assert files(site.store) == []


def test_a_deleted_study_is_not_sent_any_more(make_site: Callable[..., Site], images: Path) -> None:
    site = make_site(outputs=("report",))
    study_id = site.read(images)
    site.store.delete(study_id, by="test")
    assert site.store.outbox.claim("archive") == ()


def test_what_cannot_be_delivered_in_time_is_given_up(make_site: Callable[..., Site], images: Path) -> None:
    site = make_site(outputs=("report",))
    site.read(images)
    site.store.outbox.tidy({"archive": 1, "another": 0})
    assert site.store.outbox.counts()["queued"] == 1
    site.store.outbox.tidy({})  # removed from the settings a moment ago
    assert site.store.outbox.counts()["queued"] == 1
    site.store.outbox.tidy({"archive": 0})
    assert site.store.outbox.counts()["expired"] == 1
    assert files(site.store) == []


def test_nothing_is_given_up_because_the_clock_was_set(
    make_site: Callable[..., Site], images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = make_site(outputs=("report",))
    site.read(images)
    site.store.outbox.tidy({"archive": 14})
    now = outbox_module.server_time
    monkeypatch.setattr(outbox_module, "server_time", lambda connection: now(connection) + timedelta(days=30))
    site.store.outbox.tidy({"archive": 14})
    assert site.store.outbox.counts()["queued"] == 1
    assert len(files(site.store)) == 1


@pytest.mark.parametrize("waits_for", ["the first attempt", "the next attempt", "the commitment"])
def test_a_clock_that_was_ahead_and_is_right_again_holds_no_results_up(
    make_site: Callable[..., Site], images: Path, monkeypatch: pytest.MonkeyPatch, waits_for: str
) -> None:
    site = make_site(outputs=("report",))
    outbox, right = site.store.outbox, outbox_module.server_time
    with monkeypatch.context() as clock:  # no sender releases its claims meanwhile
        for module in (outbox_module, outbox_of_readings):
            clock.setattr(module, "server_time", lambda connection: right(connection) + timedelta(days=30))
        study_id = site.read(images)
        if waits_for != "the first attempt":
            ((object_id, _),) = outbox.claim("archive")
            outbox.failed(object_id, "away") if waits_for == "the next attempt" else outbox.sent(object_id)
    assert len(outbox.claim("archive")) == 1, study_id
    assert outbox.claim("archive") == (), "for ten minutes it is the caller's"


def test_results_that_are_held_wait_as_long_as_the_settings_say(make_site: Callable[..., Site], images: Path) -> None:
    site = make_site(outputs=("report",))
    site.read(images)
    outbox, late = site.store.outbox, NodeSettings(node=Node(quiet_seconds=7200))
    outbox.longest_hold = timedelta(seconds=longest_hold_s(late))
    (uid,) = {str(dcmread(path).StudyInstanceUID) for path in images.iterdir()}
    outbox.hold(uid, 7200)
    assert outbox.claim("archive") == ()
    outbox.hold(uid, 8000)
    assert len(outbox.claim("archive")) == 1, "no settings let it wait so long"


def test_a_late_report_does_not_bring_back_what_was_delivered(make_site: Callable[..., Site], images: Path) -> None:
    site = make_site(outputs=("report",))
    site.read(images)
    ((object_id, outgoing),) = site.store.outbox.claim("archive")
    site.store.outbox.delivered(object_id)
    site.store.outbox.not_committed("archive", outgoing.sop_instance_uid)
    assert site.store.outbox.counts()["delivered"] == 1


def test_each_request_for_commitment_has_a_transaction_of_its_own(
    make_site: Callable[..., Site], running: Callable[[Site], DicomNode], archive: Archive, images: Path
) -> None:
    site = make_site(outputs=("report",), commitment=True)
    archive.commits = False
    site.read(images)
    running(site)
    end = monotonic() + WAIT_S
    while len(archive.transactions) < 2 and monotonic() < end:
        sleep(0.05)
    assert len(set(archive.transactions)) == len(archive.transactions) >= 2


def test_a_class_that_the_archive_does_not_take_is_named_and_the_others_are_sent(
    make_site: Callable[..., Site],
    running: Callable[[Site], DicomNode],
    images: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    old = Archive(classes=CLASSES[1:])
    try:
        site = make_site(outputs=("report", "pictures"), port=old.port)
        site.read(images)
        running(site)
        settled(site.store, delivered=1, queued=1)
    finally:
        old.stop()
    assert "1 results for archive were not sent: it does not accept Comprehensive 3D SR Storage" in caplog.text


@pytest.mark.parametrize("damage", ["a bit", "no SOP class, in an object without a digest"])
def test_a_damaged_object_is_not_sent_and_holds_no_other_one_up(
    make_site: Callable[..., Site],
    running: Callable[[Site], DicomNode],
    archive: Archive,
    images: Path,
    damage: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    site = make_site(outputs=("report", "pictures"))
    site.read(images)
    table = outbox_module.tables.outbox
    with site.store.database.writing() as connection:
        first = connection.execute(table.select().order_by(table.c.object_id).limit(1)).one()
        path = site.store.outbox.folder / first.file
        if damage == "a bit":
            content = bytearray(path.read_bytes())
            content[-2] ^= 1
            path.write_bytes(content)
        else:  # of an earlier version; pynetdicom raises AttributeError
            dataset = dcmread(path)
            del dataset.SOPClassUID
            dataset.save_as(path)
            connection.execute(table.update().values(sha256=""))
    running(site)
    settled(site.store, delivered=1, **{"expired" if damage == "a bit" else "queued": 1})
    (received,) = archive.received
    assert received.SOPInstanceUID != first.sop_instance_uid
    with site.store.database.reading() as connection:
        row = connection.execute(table.select().where(table.c.object_id == first.object_id)).one()
    if damage != "a bit":
        assert (row.attempts > 0, row.error) == (True, "AttributeError")
        return
    assert (row.attempts, row.error.partition(":")[0], row.file) == (0, "damaged on the disk", "")
    assert not path.exists()
    assert f"the stored file of object {first.sop_instance_uid} is damaged" in caplog.text
    site.read(images)
    settled(site.store, delivered=2)
    assert [one.SOPInstanceUID for one in archive.received[1:]] == [first.sop_instance_uid]
