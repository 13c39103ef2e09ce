"""What became of results: numbers, lists, and sending them again on request."""

import errno
from collections.abc import Callable
from pathlib import Path

import pytest

from hemoscope.cli import main
from hemoscope.errors import StoreError
from hemoscope.inference.predictor import Predictor
from hemoscope.store.node_settings import Destination
from hemoscope.store.store import Store
from hemoscope.store.values import DeliveryState, Resent
from hemoscope.web.metrics import Metrics

from .conftest import Site, files

KNOWN = ("archive", "second")
Resend = Callable[..., Resent]


@pytest.fixture
def site(store: Store, predictor: Predictor) -> Site:
    whole = {"name": "archive", "ae_title": "ARCHIVE", "host": "127.0.0.1", "port": 104, "outputs": ("report",)}
    return Site(store, predictor, destinations=(Destination(**whole),))  # type: ignore[arg-type]


@pytest.fixture
def resend(store: Store) -> Resend:
    def ask(study_id: str | None = None, destination: str | None = None) -> Resent:
        return store.deliveries.resend(study_id=study_id, destination=destination, known=KNOWN, by="anna")

    return ask


def deliver(site: Site, destination: str = "archive") -> int:
    claimed = site.store.outbox.claim(destination)
    for object_id, _ in claimed:
        site.store.outbox.delivered(object_id)
    return len(claimed)


def give_up(site: Site) -> None:
    site.store.outbox.tidy({"archive": 0})


def state(site: Site, study_id: str) -> dict[str, DeliveryState]:
    return {one.destination: one.state for one in site.store.get(study_id).deliveries}


def test_a_study_says_what_became_of_its_results(site: Site, images: Path) -> None:
    study_id = site.read(images)
    assert state(site, study_id) == {"archive": DeliveryState.WAITING}
    ((object_id, outgoing),) = site.store.outbox.claim("archive")
    site.store.outbox.failed(object_id, "no association")
    (waiting,) = site.store.get(study_id).deliveries
    assert (waiting.error, waiting.sent_at) == ("no association", None)
    version = site.store.changes_since(0).version
    site.store.outbox.sent(object_id)
    assert state(site, study_id) == {"archive": DeliveryState.SENT}
    site.store.outbox.committed("archive", outgoing.sop_instance_uid)
    (committed,) = site.store.get(study_id).deliveries
    assert committed.state == DeliveryState.COMMITTED
    assert committed.sent_at is not None
    assert [one.study_id for one in site.store.changes_since(version).studies] == [study_id]  # open pages are told


def test_numbers_of_results_stand_in_the_metrics(site: Site, images: Path) -> None:
    site.read(images)
    assert site.store.deliveries.counts().oldest_waiting_s is not None
    text = Metrics(site.store).text().decode()
    assert 'hemoscope_results{state="waiting"} 1.0' in text
    give_up(site)
    text = Metrics(site.store).text().decode()
    assert 'hemoscope_results{state="failed"} 1.0' in text
    assert "hemoscope_oldest_result_seconds 0.0" in text


def test_what_was_given_up_is_sent_again_while_it_is_kept(site: Site, images: Path, resend: Resend) -> None:
    site.store.outbox.keep_ended += site.store.jobs.lease_time
    study_id = site.read(images)
    give_up(site)
    assert site.store.outbox.claim("archive") == ()
    assert resend(study_id) == Resent(queued=1, gone=0)
    assert deliver(site) == 1
    assert resend(study_id) == Resent(queued=1, gone=0)
    assert deliver(site) == 1
    actions = [(one.user, one.study_id, one.detail) for one in site.store.audit_log() if one.action == "resend"]
    assert actions == [("anna", study_id, "1 results to all destinations, 0 not kept")] * 2


def test_a_destination_that_was_added_later_gets_results_that_are_kept(
    site: Site, images: Path, resend: Resend
) -> None:
    site.store.outbox.keep_ended += site.store.jobs.lease_time
    study_id = site.read(images)
    deliver(site)
    assert resend(study_id, "second") == Resent(queued=1, gone=0)
    assert deliver(site) == 0
    assert deliver(site, "second") == 1
    assert len(files(site.store)) == 1


def test_what_is_not_kept_any_more_is_made_again_by_the_next_reading(site: Site, images: Path, resend: Resend) -> None:
    study_id = site.read(images)
    deliver(site)
    assert files(site.store) == []
    assert resend(study_id) == Resent(queued=0, gone=1)
    site.read(images)
    assert deliver(site) == 1


@pytest.mark.parametrize("damage", ["a bit", "a bad sector"])
def test_what_the_disk_damaged_is_made_again_by_the_next_reading(
    site: Site, images: Path, resend: Resend, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    study_id = site.read(images)
    (path,) = files(site.store)
    if damage == "a bit":
        path.write_bytes(b"X" + path.read_bytes()[1:])
    read = Path.read_bytes

    def read_bytes(one: Path) -> bytes:
        if one == path and damage == "a bad sector":
            raise OSError(errno.EIO, "Input/output error")
        return read(one)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", read_bytes)
        assert resend(study_id, "second") == Resent(queued=0, gone=1)
        assert resend(study_id) == Resent(queued=0, gone=2)
    site.read(images)
    assert deliver(site) == 1


def test_a_file_that_cannot_be_read_for_a_moment_stays(
    site: Site, images: Path, resend: Resend, monkeypatch: pytest.MonkeyPatch
) -> None:
    study_id = site.read(images)

    def away(_path: Path) -> bytes:
        raise OSError(errno.ESTALE, "Stale file handle")

    monkeypatch.setattr(Path, "read_bytes", away)
    assert resend(study_id) == Resent(queued=1, gone=0)


def test_everything_that_failed_is_sent_again_at_once(site: Site, images: Path, resend: Resend) -> None:
    site.read(images)
    assert resend() == Resent(queued=0, gone=0)
    ((object_id, _),) = site.store.outbox.claim("archive")
    site.store.outbox.failed(object_id, "no association")
    assert site.store.outbox.claim("archive") == ()
    assert resend() == Resent(queued=1, gone=0)
    assert deliver(site) == 1


def test_results_are_not_queued_where_nobody_sends_them(site: Site, images: Path, resend: Resend) -> None:
    study_id = site.read(images)
    with pytest.raises(StoreError, match="no destination is called 'archiv'"):
        resend(study_id, "archiv")
    with pytest.raises(StoreError, match="nothing was made to be sent of this study"):
        resend("0" * 32)


def test_files_are_kept_for_the_time_that_the_site_asks_for(site: Site, images: Path) -> None:
    site.store.outbox.keep_ended += site.store.jobs.lease_time
    site.read(images)
    deliver(site)
    site.store.outbox.tidy({"archive": 14})
    assert len(files(site.store)) == 1
    site.store.outbox.keep_ended *= 0
    site.store.outbox.tidy({"archive": 14})
    assert files(site.store) == []


def test_the_command_lists_results_and_sends_them_again(
    site: Site, images: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    study_id = site.read(images)
    give_up(site)
    storage = ("--storage", str(site.store.folder.root))
    assert main(["outbox", "list", *storage]) == 0
    listed = capsys.readouterr().out
    assert "0 waiting, 0 sent, 0 delivered, 0 committed, 1 failed" in listed
    assert study_id in listed
    assert "not delivered in time" in listed
    assert main(["outbox", "resend", study_id, *storage]) == 0
    assert "are not kept any more" in capsys.readouterr().out
    assert main(["outbox", "resend", "--all-failed", "--destination", "nobody", *storage]) == 1
    assert "no destination is called 'nobody'" in capsys.readouterr().err
