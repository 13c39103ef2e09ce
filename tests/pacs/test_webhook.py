"""The webhook: signed, without identity, delivered once, and again after a failure."""

import hashlib
import hmac
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from hemoscope.errors import ConfigError
from hemoscope.inference.findings import URGENCIES
from hemoscope.inference.predictor import Predictor
from hemoscope.pacs.webhook import WebhookSender
from hemoscope.store.node_file import read_node_settings
from hemoscope.store.node_settings import Webhook
from hemoscope.store.store import Store

from .conftest import Site, files

SECRET = b"an example of a long secret"
Requests = list[tuple[str, bytes]]


class Receiver(HTTPServer):
    """Keeps what it is told, and answers with ``status``."""

    status = 204

    def __init__(self) -> None:
        self.requests: Requests = []
        super().__init__(("127.0.0.1", 0), _Handler)


class _Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.requests.append((self.headers["X-Hemoscope-Signature"], body))
        self.send_response(self.server.status)
        self.end_headers()

    def log_message(self, *_words: object) -> None: ...


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def sender(store: Store, receiver: Receiver, tmp_path: Path) -> WebhookSender:
    (tmp_path / "secret").write_bytes(SECRET + b"\n")
    url = f"http://127.0.0.1:{receiver.server_port}/told?of=it"
    return WebhookSender(store.outbox, Webhook(url=url, secret_file=tmp_path / "secret"))


@pytest.fixture
def site(store: Store, predictor: Predictor, sender: WebhookSender, tmp_path: Path) -> Site:
    assert sender
    webhook = Webhook(url="http://127.0.0.1:1/", secret_file=tmp_path / "secret", urgencies=URGENCIES)
    return Site(store, predictor, webhook=webhook)


def test_it_is_told_once_with_a_signature_and_without_identity(
    site: Site, sender: WebhookSender, receiver: Receiver, images: Path
) -> None:
    study_id = site.read(images)
    for _ in range(2):
        sender.step()
    ((signed, body),) = receiver.requests
    moment, digest = (part.partition("=")[2] for part in signed.split(","))
    assert hmac.new(SECRET, f"{moment}.".encode() + body, hashlib.sha256).hexdigest() == digest
    told = json.loads(body)
    assert set(told) == {"event", "study_id", "urgency", "suspected"}
    assert told["study_id"] == study_id
    assert site.store.outbox.counts()["delivered"] == 1
    assert files(site.store) == []


def test_a_damaged_notification_is_not_sent(
    site: Site, sender: WebhookSender, receiver: Receiver, images: Path
) -> None:
    site.read(images)
    (path,) = site.store.outbox.folder.iterdir()
    path.write_bytes(path.read_bytes().replace(b"study_read", b"study_reac"))
    sender.step()
    assert receiver.requests == []
    assert site.store.outbox.counts()["expired"] == 1
    assert files(site.store) == []


def test_a_failure_is_tried_again(site: Site, sender: WebhookSender, receiver: Receiver, images: Path) -> None:
    receiver.status = 503
    site.read(images)
    sender.step()
    assert len(receiver.requests) == 1
    assert site.store.outbox.counts()["queued"] == 1
    assert len(files(site.store)) == 1


def test_only_the_chosen_urgencies_are_told(store: Store, predictor: Predictor, images: Path, tmp_path: Path) -> None:
    site = Site(store, predictor, webhook=Webhook(url="https://a/", secret_file=tmp_path / "s", urgencies=()))
    site.read(images)
    assert sum(site.store.outbox.counts().values()) == 0


@pytest.mark.parametrize("secret", [None, b"short"])
def test_a_missing_or_short_secret_is_refused(store: Store, tmp_path: Path, secret: bytes | None) -> None:
    if secret is not None:
        (tmp_path / "secret").write_bytes(secret)
    with pytest.raises(ConfigError, match="secret"):
        WebhookSender(store.outbox, Webhook(url="https://a/", secret_file=tmp_path / "secret"))


@pytest.mark.parametrize("url", ["http://10.1.2.3/", "ftp://a/", "10.1.2.3", ""])
def test_identity_free_or_not_it_goes_over_tls_or_stays_on_this_machine(tmp_path: Path, url: str) -> None:
    (tmp_path / "node.toml").write_text(f"[webhook]\nurl = '{url}'\nsecret_file = 's'")
    with pytest.raises(ConfigError, match="url is https"):
        read_node_settings(tmp_path / "node.toml")
