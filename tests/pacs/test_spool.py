"""The spool: each image counts once, with its newest content, and no clock hurries a study on."""

import os
import time
from contextlib import closing
from pathlib import Path

import pytest

from hemoscope.errors import ConfigError
from hemoscope.files import write_bytes
from hemoscope.pacs import spool as spool_module
from hemoscope.pacs.arrivals import Arrivals
from hemoscope.pacs.spool import Spool, SpooledStudy
from hemoscope.store.node_settings import Node, NodeSettings
from hemoscope.store.settings import Settings
from hemoscope.store.store import open_store


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path / "spool")


def studies(spool: Spool) -> list[SpooledStudy]:
    return [study for study in map(spool.study, spool.keys()) if study is not None]


def store(spool: Spool, content: bytes, *, sender: str = "CT1", instance: str = "1") -> None:
    assert spool.store(content, study="study", instance=instance, sender=sender)


def test_an_image_from_two_senders_counts_once_and_is_not_read_again(spool: Spool) -> None:
    store(spool, b"image", sender="CT1")
    (first,) = studies(spool)
    spool.handed_over(first)
    store(spool, b"image", sender="PACS")
    (second,) = studies(spool)
    assert (second.files, second.new) == (first.files, 0)
    spool.remove(second)
    assert studies(spool) == []
    assert list(spool.root.glob("*/*")) == []


def test_a_corrected_image_takes_the_place_of_the_earlier_one(spool: Spool) -> None:
    store(spool, b"as acquired")
    store(spool, b"other", instance="2")
    (first,) = studies(spool)
    spool.handed_over(first)
    store(spool, b"corrected", sender="PACS")
    (second,) = studies(spool)
    assert sorted(path.read_bytes() for path in second.files) == [b"corrected", b"other"]
    assert second.new == 1


@pytest.mark.parametrize("hours", [-5, 5])
def test_a_clock_that_is_set_does_not_make_a_study_quiet(spool: Spool, hours: int) -> None:
    store(spool, b"image")
    for path in spool.root.rglob("*.dcm"):
        os.utime(path, (time.time() + hours * 3600,) * 2)
    (study,) = studies(spool)
    assert study.quiet_s < 60


def test_an_image_that_comes_while_its_study_is_removed_is_kept(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    store(spool, b"image")
    (study,) = studies(spool)

    def late(path: Path, content: bytes, *, mode: int) -> Path:
        monkeypatch.undo()
        spool.remove(study)
        return write_bytes(path, content, mode=mode)

    monkeypatch.setattr(spool_module, "write_bytes", late)
    store(spool, b"late", instance="2")
    (kept,) = studies(spool)
    assert [path.read_bytes() for path in kept.files] == [b"late"]


def test_a_second_node_is_kept_off_the_folder_and_what_a_killed_one_left_is_removed(spool: Spool) -> None:
    store(spool, b"image")
    (image,) = spool.root.rglob("*.dcm")
    half = image.with_name(f".{image.name}-0123.part")
    half.write_bytes(b"half an image")
    with spool.held():
        assert not half.exists()
        assert image.exists()
        with pytest.raises(ConfigError, match="another hemoscope listen"), Spool(spool.root).held():
            pass
    with spool.held():
        pass


def test_a_study_that_the_store_never_takes_keeps_no_other_one_waiting(
    spool: Spool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for study in "abcd":
        for instance in range(1 if study != "a" else 3):
            spool.store(b"image %d" % instance, study=study, instance=f"{study}{instance}", sender="CT1")
    with closing(open_store(Settings(storage=tmp_path / "store", upload_files=2))) as opened:
        quick = NodeSettings(node=Node(quiet_seconds=0))
        Arrivals(spool, opened, quick, limits=opened.read_limits).step()
        assert opened.studies()[1] == 3
    assert "more than 2 files" in caplog.text
    assert [study.new for study in studies(spool)] == [0, 0, 0, 0]


def newest(spool: Spool) -> list[bytes]:
    (study,) = studies(spool)
    return [path.read_bytes() for path in study.files]


def test_the_newest_content_is_the_one_that_came_last_whatever_the_clock_says(spool: Spool) -> None:
    for content in (b"first", b"second", b"third"):
        store(spool, content)
        for number, path in enumerate(sorted(spool.root.rglob("*.dcm"), key=lambda path: path.read_bytes())):
            os.utime(path, (1000 - number, 1000 - number))
    assert newest(spool) == [b"third"]


def test_content_that_comes_again_after_other_content_is_the_newest(spool: Spool) -> None:
    for content in (b"first", b"second"):
        store(spool, content)
    (study,) = studies(spool)
    spool.handed_over(study)
    store(spool, b"first")
    assert not spool.store(b"first", study="study", instance="1", sender="CT1")
    (study,) = studies(Spool(spool.root))
    assert ([path.read_bytes() for path in study.files], study.new) == ([b"first"], 1)
    spool.remove(study)
    assert list(spool.root.iterdir()) == []


def test_images_that_an_earlier_version_received_keep_their_order(spool: Spool) -> None:
    for number, content in enumerate((b"first", b"second")):
        store(spool, content)
        (path,) = (path for path in spool.root.rglob("*.dcm") if path.read_bytes() == content)
        image, sender, digest = path.stem.split("-")[:3]
        earlier = path.rename(path.with_name(f"{image}-{sender}-{digest}.dcm"))
        os.utime(earlier, (1000 + number, 1000 + number))
    assert newest(spool) == [b"second"]
    store(spool, b"third")
    assert newest(spool) == [b"third"]
