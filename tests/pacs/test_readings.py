"""A study of which more images come is read again: the archive and the worklist show which reading counts."""

import io
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from pydicom import dcmread
from pydicom.dataset import Dataset

from hemoscope.inference.predictor import Predictor
from hemoscope.pacs.arrivals import Arrivals
from hemoscope.pacs.spool import Spool
from hemoscope.store import outbox as outbox_module
from hemoscope.store import tables
from hemoscope.store.database import server_time
from hemoscope.store.node_settings import Destination, Node, NodeSettings, ResultOptions
from hemoscope.store.store import Store
from hemoscope.testing.dicom_writer import write_series
from hemoscope.testing.phantom import make_phantom

from .conftest import Site, files

MakeSite = Callable[..., Site]
REPORT = ("report",)


@pytest.fixture
def make_site(store: Store, predictor: Predictor) -> MakeSite:
    def make(*, hold_s: float = 0, **destination: Any) -> Site:
        whole = {"name": "archive", "ae_title": "ARCHIVE", "host": "127.0.0.1", "port": 104, **destination}
        results = ResultOptions(hold_incomplete_seconds=hold_s)
        return Site(store, predictor, destinations=(Destination(**whole),), results=results)

    return make


@pytest.fixture
def partial(tmp_path: Path, images: Path) -> Path:
    """The first images of the study."""
    folder = tmp_path / "partial"
    folder.mkdir()
    for path in sorted(images.iterdir())[:-1]:
        (folder / path.name).write_bytes(path.read_bytes())
    return folder


def uid_of(folder: Path) -> str:
    return str(dcmread(next(folder.iterdir())).StudyInstanceUID)


def claimed(site: Site, destination: str = "archive") -> list[Dataset]:
    """What is due, sent and delivered."""
    found = []
    for object_id, outgoing in site.store.outbox.claim(destination):
        found.append(dcmread(io.BytesIO(site.store.outbox.read(outgoing))))
        site.store.outbox.delivered(object_id)
    return found


class TestArchive:
    def test_what_nobody_has_seen_of_a_partial_study_is_never_sent(
        self, make_site: MakeSite, images: Path, partial: Path
    ) -> None:
        site = make_site(outputs=REPORT)
        site.read(partial)
        site.read(images)
        (report,) = claimed(site)
        (study,) = report.CurrentRequestedProcedureEvidenceSequence
        assert len(study.ReferencedSeriesSequence[0].ReferencedSOPSequence) == 4
        assert "PredecessorDocumentsSequence" not in report
        assert report.SeriesDescription == "Hemoscope findings (research use only)"

    def test_results_of_an_incomplete_study_are_held_and_others_are_not(
        self, make_site: MakeSite, images: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        site = make_site(outputs=REPORT, hold_s=120)
        write_series(make_phantom(seed=3, shape=(32, 64, 64)), tmp_path / "head")
        site.read(tmp_path / "head")
        assert len(claimed(site)) == 1
        site.read(images)  # four slices are no head
        assert claimed(site) == []
        now = outbox_module.server_time
        later = timedelta(seconds=121)
        monkeypatch.setattr(outbox_module, "server_time", lambda connection: now(connection) + later)
        assert len(claimed(site)) == 1

    def test_results_wait_while_more_images_come(self, make_site: MakeSite, partial: Path) -> None:
        site = make_site(outputs=REPORT)
        site.read(partial)
        site.store.outbox.hold(uid_of(partial), 60)
        assert claimed(site) == []

    def test_results_wait_while_the_study_is_read_again(self, make_site: MakeSite, images: Path, partial: Path) -> None:
        site, uid = make_site(outputs=REPORT), uid_of(images)
        site.read(partial, study_instance_uid=uid)
        site.upload(images, study_instance_uid=uid)
        assert claimed(site) == []
        assert site.work()
        assert len(claimed(site)) == 1

    @pytest.mark.parametrize("sent_between", [True, False])
    def test_an_earlier_reading_that_ends_after_a_later_one_sends_nothing(
        self, make_site: MakeSite, images: Path, partial: Path, sent_between: bool
    ) -> None:
        site, uid = make_site(outputs=REPORT), uid_of(images)
        site.upload(partial, study_instance_uid=uid)
        slow = site.store.jobs.lease(site.worker)
        assert slow is not None
        site.read(images, study_instance_uid=uid)
        found = claimed(site) if sent_between else []  # which does not wait for the earlier one
        site.store.jobs.give_back(slow)
        assert site.work()
        (report,) = found + claimed(site)
        (study,) = report.CurrentRequestedProcedureEvidenceSequence
        assert len(study.ReferencedSeriesSequence[0].ReferencedSOPSequence) == 4

    @pytest.mark.parametrize("deleted", [0, 1])
    def test_results_that_wait_stay_if_one_of_two_readings_that_say_the_same_is_deleted(
        self, make_site: MakeSite, images: Path, deleted: int
    ) -> None:
        site, uid = make_site(outputs=REPORT), uid_of(images)
        first = site.read(images, study_instance_uid=uid)
        ((object_id, _),) = site.store.outbox.claim("archive")
        site.store.outbox.failed(object_id, "no association")
        second = site.read(images, study_instance_uid=uid)
        assert [one.study_id for one in site.store.deliveries.listed()] == [second]
        site.store.delete((first, second)[deleted], by="anna")
        left = (second, first)[deleted]
        assert [(one.study_id, one.objects) for one in site.store.deliveries.listed()] == [(left, 1)]
        site.store.delete(left, by="anna")
        assert site.store.deliveries.listed() == ()

    def test_every_later_object_says_what_it_supersedes(self, make_site: MakeSite, images: Path, partial: Path) -> None:
        site, uid = make_site(), uid_of(images)
        site.read(partial, study_instance_uid=uid)
        first = claimed(site)
        site.read(images, study_instance_uid=uid)
        second = claimed(site)
        assert {one.SOPInstanceUID for one in first}.isdisjoint(one.SOPInstanceUID for one in second)
        known = {one.SOPClassUID for one in first}
        for one in second:
            assert one.SeriesDescription.endswith("reading 2 supersedes 1") == (one.SOPClassUID in known)

    def test_a_destination_that_has_a_suspicion_gets_the_routine_reading_that_takes_it_back(
        self, make_site: MakeSite, images: Path, partial: Path
    ) -> None:
        site = make_site(outputs=REPORT)
        site.read(partial)
        assert len(claimed(site)) == 1
        quiet = make_site(outputs=REPORT, send_routine=False)
        quiet.read(images)
        assert len(claimed(quiet)) == 1

    def test_earlier_objects_are_rejected_where_the_site_asks_for_it(
        self, make_site: MakeSite, images: Path, partial: Path
    ) -> None:
        site = make_site(outputs=("report", "pictures"), reject_superseded=True)
        site.read(partial)
        first = claimed(site)
        site.read(images)
        assert len(claimed(site)) == 2  # the note waits for what replaces the rejected objects
        (note,) = claimed(site)
        assert note.Modality == "KO"
        title = note.ConceptNameCodeSequence[0]
        assert (title.CodeValue, title.CodingSchemeDesignator) == ("113001", "DCM")
        (study,) = note.CurrentRequestedProcedureEvidenceSequence
        rejected = {
            item.ReferencedSOPInstanceUID
            for series in study.ReferencedSeriesSequence
            for item in series.ReferencedSOPSequence
        }
        assert rejected == {one.SOPInstanceUID for one in first}
        assert all("ConceptNameCodeSequence" not in i for i in note.ContentSequence if i.ValueType != "TEXT")
        site.read(images)
        assert claimed(site) == []

    def test_a_study_that_is_sent_again_brings_what_was_given_up(self, make_site: MakeSite, images: Path) -> None:
        site = make_site(outputs=REPORT)
        site.read(images)
        ((_, before),) = site.store.outbox.claim("archive")
        site.store.outbox.tidy({"archive": 0})
        assert files(site.store) == []
        site.read(images)
        (again,) = claimed(site)
        assert again.SOPInstanceUID == before.sop_instance_uid

    def test_a_study_that_is_sent_again_reaches_a_destination_that_is_new(
        self, make_site: MakeSite, images: Path
    ) -> None:
        site = make_site(outputs=REPORT)
        site.read(images)
        (first,) = claimed(site)
        make_site(outputs=REPORT, name="second").read(images)
        (second,) = claimed(site, "second")
        assert second.SOPInstanceUID == first.SOPInstanceUID
        assert claimed(site) == []


class TestWorklist:
    def test_shows_a_study_once_with_its_newest_reading(self, make_site: MakeSite, images: Path, partial: Path) -> None:
        site, uid = make_site(), uid_of(images)
        first = site.read(partial, study_instance_uid=uid)
        second = site.upload(images, study_instance_uid=uid)
        # Until there is a later result, the earlier one keeps its place in the reading list.
        assert {one.study_id for one in site.store.studies()[0]} == {first, second}
        version = site.store.changes_since(0).version
        assert site.work()
        (row,), total = site.store.studies()
        assert (row.study_id, row.reading, total) == (second, 2, 1)
        assert site.store.get(second).earlier == (first,)
        changed = {one.study_id: one for one in site.store.changes_since(version).studies}
        assert changed[first].superseded_by == second

    def test_shows_the_earlier_reading_again_if_the_later_one_is_deleted(
        self, make_site: MakeSite, images: Path, partial: Path
    ) -> None:
        site, uid = make_site(), uid_of(images)
        first = site.read(partial, study_instance_uid=uid)
        second = site.read(images, study_instance_uid=uid)
        site.store.delete(second, by="test")
        assert [one.study_id for one in site.store.studies()[0]] == [first]

    def test_never_hides_an_upload_behind_another_one(self, make_site: MakeSite, images: Path) -> None:
        site = make_site()
        assert {site.read(images), site.read(images)} == {one.study_id for one in site.store.studies()[0]}


class TestArrivals:
    def test_the_node_names_the_study_and_its_origin(self, make_site: MakeSite, images: Path) -> None:
        site, uid = make_site(), uid_of(images)
        spool = Spool(site.store.folder.received)
        settings = NodeSettings(node=Node(quiet_seconds=0))
        arrivals = Arrivals(spool, site.store, settings, limits=site.store.read_limits)
        for number, path in enumerate(sorted(images.iterdir())):
            spool.store(path.read_bytes(), study=uid, instance=path.name, sender="CT1")
            spool.note_origin(uid, "CT1 at 10.1.2.3" if number else "PACS at 10.1.2.4")
            if number in (2, 3):
                arrivals.step()
                assert site.work()
        (row,), _ = site.store.studies()
        assert (row.reading, row.state) == (2, "done")
        uploads = [one.detail for one in site.store.audit_log() if one.action == "upload"]
        assert uploads == [f"{count} files from CT1 at 10.1.2.3, PACS at 10.1.2.4" for count in (4, 3)]

    def test_a_late_image_holds_what_was_read_of_the_study(
        self, make_site: MakeSite, images: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        site, uid = make_site(outputs=REPORT), uid_of(images)
        spool = Spool(site.store.folder.received)
        clock = [0.0]
        monkeypatch.setattr("hemoscope.pacs.spool.monotonic", lambda: clock[0])
        settings = NodeSettings(node=Node(quiet_seconds=10))
        arrivals = Arrivals(spool, site.store, settings, limits=site.store.read_limits)
        *first, last = sorted(images.iterdir())
        for path in first:
            spool.store(path.read_bytes(), study=uid, instance=path.name, sender="CT1")
        arrivals.step()
        clock[0] = 11
        arrivals.step()
        assert site.work()
        spool.store(last.read_bytes(), study=uid, instance=last.name, sender="CT1")
        arrivals.step()
        assert claimed(site) == []
        clock[0] = 60
        arrivals.step()
        assert site.work()
        (report,) = claimed(site)
        assert "PredecessorDocumentsSequence" not in report

    def test_a_study_stands_in_the_worklist_once_if_the_disk_is_too_full_to_note_it(
        self, make_site: MakeSite, images: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        site, uid = make_site(), uid_of(images)
        spool = Spool(site.store.folder.received)
        for path in images.iterdir():
            spool.store(path.read_bytes(), study=uid, instance=path.name, sender="CT1")
        arrivals = Arrivals(spool, site.store, NodeSettings(node=Node(quiet_seconds=0)), limits=site.store.read_limits)

        def full(*_arguments: object, **_options: object) -> None:
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as broken:
            broken.setattr("hemoscope.pacs.spool.write_text", full)
            for _ in range(3):
                with pytest.raises(OSError, match="No space"):
                    arrivals.step()
        arrivals.step()
        arrivals.step()
        assert site.store.studies()[1] == 1

    def test_images_take_no_space_twice(self, make_site: MakeSite, images: Path) -> None:
        site, uid = make_site(), uid_of(images)
        spool = Spool(site.store.folder.received)
        for path in images.iterdir():
            spool.store(path.read_bytes(), study=uid, instance=path.name, sender="CT1")
        settings = NodeSettings(node=Node(quiet_seconds=0))
        Arrivals(spool, site.store, settings, limits=site.store.read_limits).step()
        received = {path.stat().st_ino for path in spool.root.rglob("*.dcm")}
        (row,), _ = site.store.studies()
        handed_over = {path.stat().st_ino for path in site.store.folder.source(row.upload_id).glob("0*")}
        assert handed_over == received
        assert len(handed_over) == 4
        assert site.work()
        assert site.store.get(row.study_id).state == "done"

    def test_a_slow_modality_has_its_study_read_a_few_times_not_for_each_image(
        self, make_site: MakeSite, images: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        site, uid = make_site(), uid_of(images)
        spool = Spool(site.store.folder.received)
        clock = [0.0]
        monkeypatch.setattr("hemoscope.pacs.spool.monotonic", lambda: clock[0])
        settings = NodeSettings(node=Node(quiet_seconds=10))
        arrivals = Arrivals(spool, site.store, settings, limits=site.store.read_limits)
        (image, *_) = images.iterdir()
        for number in range(40):  # an image each 15 s
            spool.store(image.read_bytes() + b" " * number, study=uid, instance=str(number), sender="CT1")
            for _ in range(15):
                arrivals.step()
                clock[0] += 1
        assert site.store.studies()[1] == 1
        for _ in range(30):
            arrivals.step()
            clock[0] += 1
        assert site.store.studies()[1] == 2


class TestRetention:
    def test_results_outlive_a_study_that_is_too_old(self, make_site: MakeSite, images: Path) -> None:
        site = make_site(outputs=REPORT)
        study_id = site.read(images)
        with site.store.database.writing() as connection:
            old = server_time(connection) - timedelta(days=9)
            connection.execute(tables.studies.update().values(received_at=old))
        assert site.store.retention(7) == 1
        site.store.outbox.tidy({"archive": 14})
        assert len(claimed(site)) == 1
        site.store.outbox.tidy({"archive": 14})
        with site.store.database.reading() as connection:  # nothing is left of a study that is gone
            left = sa.select(tables.outbox).where(tables.outbox.c.study_id == study_id)
            assert connection.execute(left).all() == []

    def test_results_of_a_study_that_is_deleted_on_request_are_not_sent(
        self, make_site: MakeSite, images: Path
    ) -> None:
        site = make_site(outputs=REPORT)
        site.store.delete(site.read(images), by="anna")
        assert claimed(site) == []
