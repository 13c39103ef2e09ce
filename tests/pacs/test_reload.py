"""The file of the node is read again while it runs: peers and destinations change, associations stay."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from time import monotonic, sleep

import pytest
from pynetdicom import AE, evt
from pynetdicom.sop_class import Comprehensive3DSRStorage, Verification

from hemoscope.errors import ConfigError
from hemoscope.inference.predictor import Predictor
from hemoscope.pacs.node import DicomNode
from hemoscope.store.node_settings import Destination, Node, NodeSettings, Peer, ResultOptions
from hemoscope.store.settings import Settings
from hemoscope.store.store import Store
from hemoscope.store.supervisor import Supervisor

from .conftest import MODALITY, Site

OTHER = Peer(ae_title="OTHER", addresses=("127.0.0.1",))
WAIT_S = 60.0


def until(condition: Callable[[], object]) -> None:
    end = monotonic() + WAIT_S
    while not condition():
        assert monotonic() < end, "waited too long"
        sleep(0.05)


def accepted(node: DicomNode, title: str) -> bool:
    entity = AE(ae_title=title)
    entity.add_requested_context(Verification)
    association = entity.associate(*node.address, ae_title="HEMOSCOPE")
    established = association.is_established
    if established:
        association.release()
    return bool(established)


def test_other_peers_may_send_and_open_associations_go_on(start_node: Callable[..., DicomNode]) -> None:
    node = start_node(peers=(MODALITY,))
    assert not accepted(node, "OTHER")
    entity = AE(ae_title="MODALITY")
    entity.add_requested_context(Verification)
    association = entity.associate(*node.address, ae_title="HEMOSCOPE")
    node.apply(NodeSettings(node=Node(port=0, quiet_seconds=0.5), peers=(OTHER,)))
    assert association.send_c_echo().Status == 0x0000
    association.release()
    assert accepted(node, "OTHER")
    assert not accepted(node, "MODALITY")


def test_what_only_a_start_can_change_is_named_and_stays(
    start_node: Callable[..., DicomNode], caplog: pytest.LogCaptureFixture
) -> None:
    node = start_node(peers=(MODALITY,))
    node.apply(NodeSettings(node=Node(port=1, ae_title="NEW"), peers=(MODALITY,)))
    assert "ae_title, port: restart hemoscope listen for this change" in caplog.text
    assert accepted(node, "MODALITY")


def test_a_destination_that_is_added_gets_results(store: Store, predictor: Predictor, images: Path) -> None:
    archive = AE(ae_title="ARCHIVE")
    archive.add_supported_context(Comprehensive3DSRStorage)
    received: list[evt.Event] = []
    handlers = [(evt.EVT_C_STORE, lambda event: received.append(event) or 0x0000)]
    server = archive.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
    assert server is not None
    port = server.server_address[1]
    added = Destination(name="new", ae_title="ARCHIVE", host="127.0.0.1", port=port, outputs=("report",))
    before = NodeSettings(node=Node(port=0), results=ResultOptions(hold_incomplete_seconds=0))
    try:
        with DicomNode(store, before) as node:
            site = Site(store, predictor, destinations=(added,))
            node.apply(replace(before, destinations=site.settings.destinations))
            site.read(images)
            until(lambda: store.deliveries.counts().delivered)
            assert node.fault() is None
        assert len(received) == 1
    finally:
        archive.shutdown()


@pytest.mark.journey
def test_a_hang_up_reads_the_file_again_and_a_wrong_one_changes_nothing(tmp_path: Path) -> None:
    file, log = tmp_path / "node.toml", tmp_path / "log"
    (tmp_path / "secret").write_text("a secret of many characters")
    webhook = "[webhook]\nurl = 'https://site.example/'\nsecret_file = 'secret'\nurgencies = ['prompt']\n"
    file.write_text(f"[node]\nport = 0\n{webhook}")
    command = [str(Path(sys.executable).with_name("hemoscope")), "listen", str(file), "--storage", str(tmp_path / "s")]
    with log.open("wb") as stream:
        process = subprocess.Popen(command, stdout=stream, stderr=subprocess.STDOUT, start_new_session=True)
    try:
        until(lambda: "listens as" in log.read_text())
        until(lambda: "[webhook] has prompt and lacks unsure" in log.read_text())
        file.write_text("[node]\nprot = 0\n")
        os.kill(process.pid, signal.SIGHUP)
        until(lambda: "the old settings still count: node.toml, node: no such key: prot" in log.read_text())
        file.write_text("[node]\nport = 0\nquiet_seconds = 5\n")
        os.kill(process.pid, signal.SIGHUP)
        until(lambda: "the file of the node was read again" in log.read_text())
    finally:
        process.terminate()
        assert process.wait(60) == 0


@pytest.mark.journey
def test_workers_make_results_for_a_destination_that_was_added(
    store: Store, tmp_path: Path, tiny_bundle: Path, images: Path
) -> None:
    file = tmp_path / "node.toml"
    file.write_text("[node]\n")
    settings = Settings(storage=tmp_path / "store", model=tiny_bundle, threads=1, node=file)
    with Supervisor(store, settings) as supervisor:
        until(lambda: store.counts().workers)
        file.write_text("[[destination]]\n")
        with pytest.raises(ConfigError, match="destination 1: name, ae_title, host, port is missing"):
            supervisor.reload()
        file.write_text("[[destination]]\nname='new'\nae_title='PACS'\nhost='127.0.0.1'\nport=104\n")
        supervisor.reload()
        with store.begin_upload() as upload:
            for path in images.iterdir():
                upload.link_file(path)
            store.accept(upload, submitted_by="test")
        until(lambda: store.deliveries.counts().waiting)
    assert {one.destination for one in store.deliveries.listed()} == {"new"}
