"""Images that the disk damages after they were received: named as lost, replaced when sent again, in nobody's way."""

import errno
import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest

from hemoscope.checksums import sha256_of
from hemoscope.dicom.archive import Archive
from hemoscope.pacs.arrivals import Arrivals
from hemoscope.pacs.spool import Spool, SpooledStudy
from hemoscope.store import uploads
from hemoscope.store.node_settings import Node, NodeSettings
from hemoscope.store.sources import open_upload
from hemoscope.store.store import Store

NOW = NodeSettings(node=Node(quiet_seconds=0))


@pytest.fixture
def spool(store: Store) -> Spool:
    return Spool(store.folder.received)


@pytest.fixture
def arrivals(spool: Spool, store: Store) -> Arrivals:
    return Arrivals(spool, store, NOW, limits=store.read_limits)


@pytest.fixture
def send(spool: Spool, images: Path) -> Callable[..., bool]:
    """``send(number)``: receive an image of the phantom; return whether it was written."""
    contents = [path.read_bytes() for path in sorted(images.iterdir())]

    def sent(number: int, *, study: str = "study", sender: str = "CT1") -> bool:
        return spool.store(contents[number], study=study, instance=str(number), sender=sender)

    return sent


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-100] ^= 1
    path.write_bytes(content)


def only_study(spool: Spool) -> SpooledStudy:
    (key,) = spool.keys()
    study = spool.study(key)
    assert study is not None
    return study


def file_of(spool: Spool, number: int) -> Path:
    """The file of an image of the only study, by the hash of its instance, which its name begins with."""
    study = only_study(spool)
    image = hashlib.sha256(str(number).encode()).hexdigest()[:32]
    (path,) = (path for path in study.files if path.name.startswith(image))
    return path


def opened(store: Store) -> list[Archive]:
    """What was handed over, the latest first."""
    return [open_upload(store.folder, one.upload_id, deidentify=False) for one in store.studies()[0]]


def lost(archive: Archive) -> int:
    assert {one.code for one in archive.rejected} <= {"lost_upload"}
    return len(archive.rejected)


def test_an_image_that_was_damaged_before_the_hand_over_is_named_as_lost(
    spool: Spool, store: Store, arrivals: Arrivals, send: Callable[..., bool], caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(4):
        send(number)
    flip_a_bit(file_of(spool, 0))
    arrivals.step()
    (archive,) = opened(store)
    assert (lost(archive), len(archive.sources)) == (1, 3)
    (one,) = archive.studies[0].series
    assert [unread.code for unread in one.unread] == ["lost_upload"]
    assert "1 images were damaged on the disk after they were received" in caplog.text
    arrivals.step()
    assert store.studies()[1] == 1, "it is not handed over again and again"


@pytest.mark.parametrize("handed_over", [False, True])
def test_a_damaged_image_that_is_sent_again_is_replaced(
    spool: Spool, store: Store, arrivals: Arrivals, send: Callable[..., bool], handed_over: bool
) -> None:
    for number in range(4):
        send(number)
    flip_a_bit(file_of(spool, 0))
    if handed_over:
        arrivals.step()
    assert send(0)
    assert not send(0)
    arrivals.step()
    assert sorted(map(lost, opened(store))) == ([0, 1] if handed_over else [0])
    assert len(list(spool.root.glob("*/*.dcm"))) == 4


def test_a_lost_image_is_lost_too_when_the_study_is_read_again(
    spool: Spool, store: Store, arrivals: Arrivals, send: Callable[..., bool]
) -> None:
    for number in range(3):
        send(number)
    flip_a_bit(file_of(spool, 0))
    arrivals.step()
    send(3)
    arrivals.step()
    assert [lost(archive) for archive in opened(store)] == [1, 1]


def test_the_copy_of_another_sender_takes_the_place_of_a_lost_image(
    spool: Spool, store: Store, arrivals: Arrivals, send: Callable[..., bool]
) -> None:
    for number in range(3):
        send(number)
    flip_a_bit(file_of(spool, 0))
    arrivals.step()
    send(0, sender="PACS")
    arrivals.step()
    assert sorted(map(lost, opened(store))) == [0, 1]
    send(3)
    arrivals.step()
    assert sorted(map(lost, opened(store))) == [0, 0, 1], "the copy stays in its place"
    arrivals.step()
    assert len(opened(store)) == 3


@pytest.mark.parametrize("unreadable", [{0}, {0, 1, 2, 3}])
def test_images_that_the_disk_cannot_read_are_lost_and_keep_no_study_waiting(
    store: Store,
    arrivals: Arrivals,
    send: Callable[..., bool],
    images: Path,
    unreadable: set[int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bad = {path.read_bytes() for number, path in enumerate(sorted(images.iterdir())) if number in unreadable}

    def read(path: Path) -> str:
        if path.read_bytes() in bad:
            raise OSError(errno.EIO, "Input/output error")
        return sha256_of(path)

    monkeypatch.setattr(uploads, "sha256_of", read)
    for number in range(4):
        send(number, study="a")
    send(1, study="b")
    arrivals.step()
    found = sorted((lost(archive), len(archive.sources)) for archive in opened(store))
    assert found == ([(0, 1), (1, 3)] if len(unreadable) == 1 else [(1, 0), (4, 0)])


def test_a_study_whose_files_cause_an_error_keeps_no_other_one_waiting(
    spool: Spool, store: Store, arrivals: Arrivals, send: Callable[..., bool]
) -> None:
    for study in "abc":
        send(0, study=study)
    first = spool.root / next(iter(spool.keys()))
    (first / "no-name.dcm").write_bytes(b"x")
    with pytest.raises(ValueError, match="unpack"):
        arrivals.step()
    assert [arrivals.fault] == ["ValueError"]
    assert store.studies()[1] == 2
    (first / "no-name.dcm").unlink()
    arrivals.step()
    assert arrivals.fault is None
    assert store.studies()[1] == 3


@pytest.mark.parametrize("content", [b"", b'["a', b"\xff\xfe", b'"x"', b"7", b'["no name", 7]'])
def test_a_damaged_list_counts_as_empty(
    spool: Spool, store: Store, arrivals: Arrivals, send: Callable[..., bool], content: bytes
) -> None:
    for number in range(2):
        send(number)
    spool.note_origin("study", "CT1 at 10.1.2.3")
    flip_a_bit(file_of(spool, 0))
    arrivals.step()
    for name in ("read.json", "lost.json", "origins.json"):
        (path,) = spool.root.glob(f"*/{name}")
        path.write_bytes(content)
    again = Spool(spool.root)
    again.note_origin("study", "CT1 at 10.1.2.3")
    study = only_study(again)
    assert study.new == 2
    assert "CT1 at 10.1.2.3" in again.origins(study)
    Arrivals(again, store, NOW, limits=store.read_limits).step()
    assert [lost(archive) for archive in opened(store)] == [1, 1]
    assert only_study(again).new == 0
