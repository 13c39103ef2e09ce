"""From the spool into the store: a study that has been quiet is read, and again if images of it come late."""

import logging
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from hemoscope.dicom import tags
from hemoscope.dicom.elements import Elements
from hemoscope.dicom.part10 import parse
from hemoscope.dicom.read_limits import ReadLimits
from hemoscope.errors import DicomReadError, StoreError
from hemoscope.files import UNREADABLE
from hemoscope.pacs.spool import Spool, SpooledStudy, sender_key
from hemoscope.store.background import described
from hemoscope.store.node_settings import IGNORE, READ, NodeSettings, Rule
from hemoscope.store.store import Store

_log = logging.getLogger("hemoscope.pacs")
SUBMITTED_BY = "PACS"
_NEVER = frozenset({"file_too_large", "too_many_files", "upload_too_large"})
_MOST_QUIET_S = 300.0
_JUST_NOW_S = 2.0  # a few looks: so long after an image came, its study's results are told to wait


def longest_hold_s(settings: NodeSettings) -> float:
    """Return for how many seconds results are held at the longest, while images of their study may be coming."""
    return max(settings.node.quiet_seconds, _MOST_QUIET_S) + settings.results.hold_incomplete_seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesFacts:
    """What rules look at: one series, with the keys of the AE titles that sent it."""

    description: str
    body_part: str
    images: int
    senders: frozenset[str]


def action_of(series: SeriesFacts, rules: Sequence[Rule]) -> tuple[str, int | None]:
    """Return what happens to a series, and the number of the rule that says so, from 1; None if no rule does."""
    for number, rule in enumerate(rules, 1):
        if _holds(rule, series):
            return rule.action, number
    return READ, None


def _holds(rule: Rule, series: SeriesFacts) -> bool:
    return (
        (rule.calling_ae_title is None or sender_key(rule.calling_ae_title) in series.senders)
        and (rule.description is None or re.search(rule.description, series.description, re.IGNORECASE) is not None)
        and (rule.body_part is None or rule.body_part.casefold() == series.body_part.casefold())
        and (rule.least_images is None or series.images >= rule.least_images)
    )


class Arrivals:
    """Hands studies over; ``step`` is called again and again. ``fault`` is why the last call failed, None if not."""

    def __init__(self, spool: Spool, store: Store, settings: NodeSettings, *, limits: ReadLimits) -> None:
        """Prepare; nothing is handed over before ``step``."""
        self._spool = spool
        self._store = store
        self._settings = settings
        self._limits = limits
        self._times_read: dict[str, int] = {}
        self._accepted: dict[str, tuple[tuple[Path, ...], tuple[Path, ...]]] = {}
        self.fault: str | None = None

    def apply(self, settings: NodeSettings) -> None:
        """Take other times and rules from the next step on."""
        self._settings = settings

    def step(self) -> None:
        """Hand over every study that is quiet and has new images, and remove those whose time is over.

        A study that the store never takes, such as one that is too large, keeps no other one waiting: the log says so.
        Nor does one whose files cause an error: it is tried again by the next call.

        Raises:
            StoreError: the store is full or away; the images stay, and the next call tries again.
            Exception: the first error of a single study, once all were tried.
        """
        try:
            keys = self._spool.keys()
            self._times_read = {key: count for key, count in self._times_read.items() if key in keys}
            self._accepted = {key: accepted for key, accepted in self._accepted.items() if key in keys}
            self._step_each(keys)
        except Exception as error:
            self.fault = described(error)
            raise
        self.fault = None

    def _step_each(self, keys: Sequence[str]) -> None:
        first: Exception | None = None
        for key in keys:
            try:
                self._step(key)
            except StoreError:
                raise  # it would take no other study either
            except Exception as error:  # noqa: BLE001 - whatever is wrong with one study, the others are read
                first = first or error
        if first is not None:
            raise first

    def _step(self, key: str) -> None:
        study, node = self._spool.study(key), self._settings.node
        if study is None:
            return
        if study.new and study.again and study.quiet_s < _JUST_NOW_S:
            self._hold_results(study)
        if study.new and study.quiet_s >= self._quiet_seconds(study):
            try:
                self._hand_over(study)
            except StoreError as error:
                if error.code not in _NEVER:
                    raise
                _log.error("a study of %d images is not read: %s. Leave series out", len(study.files), error.reason)
                self._spool.handed_over(study)
            self._times_read[study.key] = self._times_read.get(study.key, 0) + 1
        elif not study.new and study.quiet_s >= 60 * node.late_minutes:
            self._spool.remove(study)

    def _quiet_seconds(self, study: SpooledStudy) -> float:
        """How long a study must be quiet: twice as long after each time that it was read too early, within a bound.

        A modality that takes longer for an image than ``quiet_seconds`` would else have each image read as a study.
        """
        first = self._settings.node.quiet_seconds
        return float(max(first, min(first * 2 ** min(self._times_read.get(study.key, 0), 16), _MOST_QUIET_S)))

    def _hold_results(self, study: SpooledStudy) -> None:
        """More images of a study are coming: let what was read of it so far wait, if nobody has seen it yet."""
        uid = self._study_uid(study.files)
        if uid is not None:
            self._store.outbox.hold(uid, self._quiet_seconds(study) + self._settings.results.hold_incomplete_seconds)

    def _study_uid(self, files: Iterable[Path]) -> str | None:
        """Return the UID in the first file that can be read."""
        headers = (self._header(path, until=tags.STUDY_INSTANCE_UID) for path in files)
        readable = (elements for elements in headers if elements is not None)
        return next((elements.text(tags.STUDY_INSTANCE_UID) or None for elements in readable), None)

    def _header(self, path: Path, *, until: int) -> Elements | None:
        """Return the first elements of an image; None if it cannot be read: whoever reads the upload refuses it."""
        try:
            return parse(path.read_bytes(), source="image", limits=self._limits, until=until).elements
        except DicomReadError:
            return None
        except OSError as error:
            if error.errno not in UNREADABLE:
                raise
            return None

    def _hand_over(self, study: SpooledStudy) -> None:
        # What the store accepted is not handed over again because the disk was too full to note it.
        files, lost = self._accepted.get(study.key, ((), ()))
        if files != study.files:
            lost = self._accept(study)
            self._accepted[study.key] = study.files, lost
        # Killed before this line, the study is read twice, and its results have the same UIDs.
        self._spool.handed_over(study, lost=lost)

    def _accept(self, study: SpooledStudy) -> tuple[Path, ...]:
        """Make an upload of a study; return the images that were damaged since they were received."""
        wanted = self.wanted(study.files)
        if not wanted:
            _log.info("a study of %d images is not read: rules ignore all its series", len(study.files))
            return ()
        origins = ", ".join(self._spool.origins(study))
        with self._store.begin_upload() as upload:
            for path in wanted:
                upload.link_file(path, sha256=Spool.digest_of(path))
            summary = self._store.accept(
                upload,
                submitted_by=SUBMITTED_BY,
                origin=f" from {origins}" if origins else "",
                study_instance_uid=self._study_uid(path for path in wanted if path not in upload.lost),
            )
        _log.info("study %s: %d images handed over", summary.study_id, len(wanted))
        if upload.lost:
            msg = "study %s: %d images were damaged on the disk after they were received. Send the study again"
            _log.error(msg, summary.study_id, len(upload.lost))
        return tuple(upload.lost)

    def wanted(self, files: Sequence[Path]) -> tuple[Path, ...]:
        """Return the images of the series that the rules do not ignore; all where there are no rules."""
        if not self._settings.rules:
            return tuple(files)
        series: dict[str, list[Path]] = {}
        texts: dict[str, tuple[str, str]] = {}
        for path in files:
            uid, description, body_part = self._texts(path)
            series.setdefault(uid, []).append(path)
            texts.setdefault(uid, (description, body_part))
        return tuple(
            path
            for uid, paths in series.items()
            if action_of(_facts(paths, texts[uid]), self._settings.rules)[0] != IGNORE
            for path in paths
        )

    def _texts(self, path: Path) -> tuple[str, str, str]:
        elements = self._header(path, until=tags.SERIES_INSTANCE_UID)
        if elements is None:
            return "", "", ""
        return (
            elements.text(tags.SERIES_INSTANCE_UID),
            elements.text(tags.SERIES_DESCRIPTION),
            elements.text(tags.BODY_PART_EXAMINED),
        )


def _facts(paths: Sequence[Path], texts: tuple[str, str]) -> SeriesFacts:
    senders = frozenset(Spool.sender_of(path) for path in paths)
    return SeriesFacts(description=texts[0], body_part=texts[1], images=len(paths), senders=senders)
