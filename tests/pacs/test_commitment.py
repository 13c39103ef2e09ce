"""An archive that reports storage commitment on the association on which it was asked."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from io import BytesIO
from pathlib import Path
from threading import Thread
from time import monotonic, sleep

import pytest
from pydicom.dataset import Dataset
from pynetdicom import AE, evt
from pynetdicom.dimse_primitives import N_EVENT_REPORT
from pynetdicom.dsutils import encode
from pynetdicom.sop_class import (
    Comprehensive3DSRStorage,
    StorageCommitmentPushModel,
    StorageCommitmentPushModelInstance,
)

from hemoscope.inference.predictor import Predictor
from hemoscope.pacs.node import DicomNode
from hemoscope.store.node_settings import Destination
from hemoscope.store.store import Store

from .conftest import Site

WAIT_S = 60.0
Start = Callable[[Callable[[evt.Event], tuple[int, None]]], int]


@pytest.fixture
def start_archive() -> Iterator[Start]:
    """Start an archive that answers requests for commitment in the given way; return its port."""
    with ExitStack() as running:

        def start(asked: Callable[[evt.Event], tuple[int, None]]) -> int:
            entity = AE(ae_title="ARCHIVE")
            entity.add_supported_context(Comprehensive3DSRStorage)
            entity.add_supported_context(StorageCommitmentPushModel)
            handlers = [(evt.EVT_C_STORE, lambda _event: 0x0000), (evt.EVT_N_ACTION, asked)]
            server = entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
            assert server is not None
            running.callback(entity.shutdown)
            return int(server.server_address[1])

        yield start


@pytest.mark.parametrize(("commits", "state"), [(True, "committed"), (False, "waiting")])
def test_a_report_on_the_same_association_counts(
    store: Store, predictor: Predictor, images: Path, start_archive: Start, commits: bool, state: str
) -> None:
    answers: list[int] = []

    def asked(event: evt.Event) -> tuple[int, None]:
        Thread(target=report, args=(event.assoc, event.action_information)).start()
        return 0x0000, None

    def report(association: object, request: Dataset) -> None:
        sleep(0.2)  # after the answer to the request
        content = Dataset()
        content.TransactionUID = request.TransactionUID
        name = "ReferencedSOPSequence" if commits else "FailedSOPSequence"
        setattr(content, name, request.ReferencedSOPSequence)
        answer, _ = association.send_n_event_report(  # type: ignore[attr-defined]
            content, 1 if commits else 2, StorageCommitmentPushModel, StorageCommitmentPushModelInstance
        )
        answers.append(answer.Status)

    port = start_archive(asked)
    destination = Destination(
        name="archive", ae_title="ARCHIVE", host="127.0.0.1", port=port, outputs=("report",), commitment=True
    )
    site = Site(store, predictor, destinations=(destination,))
    site.read(images)
    with DicomNode(site.store, site.settings):
        end = monotonic() + WAIT_S
        while not answers and monotonic() < end:
            sleep(0.05)
        assert answers == [0x0000]
        while not (found := getattr(store.deliveries.counts(), state)) and monotonic() < end:
            sleep(0.05)
        assert found == 1


def test_a_report_before_the_answer_to_the_request_counts(
    store: Store, predictor: Predictor, images: Path, start_archive: Start, caplog: pytest.LogCaptureFixture
) -> None:
    def asked(event: evt.Event) -> tuple[int, None]:
        content = Dataset()
        content.TransactionUID = event.action_information.TransactionUID
        content.ReferencedSOPSequence = event.action_information.ReferencedSOPSequence
        report = N_EVENT_REPORT()
        report.MessageID, report.EventTypeID = 7, 1
        report.AffectedSOPClassUID = StorageCommitmentPushModel
        report.AffectedSOPInstanceUID = StorageCommitmentPushModelInstance
        encoded = encode(content, event.context.transfer_syntax.is_implicit_VR, is_little_endian=True)
        assert encoded is not None
        report.EventInformation = BytesIO(encoded)
        # Its own way of sending waits for an answer, which the archive's thread is busy to take.
        event.assoc.dimse.send_msg(report, event.context.context_id)
        return 0x0000, None

    destination = Destination(
        name="archive",
        ae_title="ARCHIVE",
        host="127.0.0.1",
        port=start_archive(asked),
        outputs=("report",),
        commitment=True,
    )
    site = Site(store, predictor, destinations=(destination,))
    site.read(images)
    with DicomNode(site.store, site.settings):
        end = monotonic() + WAIT_S
        while not store.deliveries.counts().committed and monotonic() < end:
            sleep(0.05)
    assert store.deliveries.counts().committed == 1
    assert "does not take requests" not in caplog.text
