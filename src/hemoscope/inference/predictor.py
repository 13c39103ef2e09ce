"""The chain, written once: archive -> series -> volume -> model input -> scores -> probabilities -> findings.

A bundle with a sequence network runs it over what was said of all slices; for callers nothing differs. The command
line, the web app, the PACS node and the evaluation all call ``Predictor``, so they cannot disagree.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from enum import StrEnum
from functools import partial
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from hemoscope.dicom.archive import Archive, DecodedSeries, Study
from hemoscope.dicom.readable_series import read_best_series
from hemoscope.dicom.series_from_volume import series_of_volume
from hemoscope.errors import SeriesError
from hemoscope.inference.ahead import ScoresAhead
from hemoscope.inference.bundle import ModelBundle
from hemoscope.inference.engine import Engine, RawScores
from hemoscope.inference.findings import SkippedSeries, study_findings
from hemoscope.inference.precision import DEFAULT_PRECISION, Precision
from hemoscope.inference.preprocess import Preprocessing, model_input
from hemoscope.inference.probabilities import StudyProbabilities, averaged, sequence_places
from hemoscope.inference.study_reading import Prediction, StudyOutcome, StudyReading
from hemoscope.inference.thin_series import SlicesToScore, overlapping_runs
from hemoscope.progress import Progress, StageProgress
from hemoscope.volume import AxisChange, HounsfieldVolume

__all__ = ["Prediction", "Predictor", "Stage", "StudyOutcome", "StudyReading", "studies_with"]

# Preparing a slice takes about a third as long as scoring it. On two cores 238 slices took 1.6 s with no thread for it,
# 0.95 s with one and 0.82 s with two: Pillow and the windows release Python's lock, and the engine never waits.
_PREPARING_THREADS = 2
_PREPARED_AHEAD = 4


_Slice = tuple[HounsfieldVolume, int]  # a volume and the index of one of its slices
Scored = tuple[StudyProbabilities, NDArray[np.float32] | None]  # with the heat maps, if they are kept


class Stage(StrEnum):
    """What a study is going through, for a progress bar."""

    READING = "reading"
    SCORING = "scoring"


class Predictor:
    """A model ready to read studies. Make one and keep it; use it from one thread at a time."""

    def __init__(
        self,
        bundle: ModelBundle,
        *,
        threads: int | None = None,
        precision: Precision = DEFAULT_PRECISION,
        engine: Engine | None = None,
    ) -> None:
        """Compile the bundle's model for this processor.

        Args:
            bundle: a verified bundle.
            threads: for decoding and scoring; None takes the processors this process may use, eight at most.
            precision: of the network; ``engine.precision`` says which it became.
            engine: of this bundle, compiled already; the two before it do not count then.
        """
        self.bundle = bundle
        self.engine = engine or Engine(bundle, threads=threads, precision=precision)

    def predict(
        self,
        archive: Archive,
        *,
        series_instance_uid: str | None = None,
        maps: bool = False,
        progress: StageProgress | None = None,
    ) -> Prediction:
        """Read every study of an archive and keep all of them in memory; ``studies`` holds one at a time."""
        outcomes = tuple(self.studies(archive, series_instance_uid=series_instance_uid, maps=maps, progress=progress))
        return Prediction(
            studies=tuple(outcome.reading for outcome in outcomes if outcome.reading is not None),
            rejected=archive.rejected + tuple(refusal for outcome in outcomes for refusal in outcome.rejected),
        )

    def studies(
        self,
        archive: Archive,
        *,
        series_instance_uid: str | None = None,
        maps: bool = False,
        progress: StageProgress | None = None,
    ) -> Iterator[StudyOutcome]:
        """Read the studies of an archive one after the other; a study that cannot be read never stops the others.

        Args:
            archive: what ``open_archive`` found.
            series_instance_uid: read this series, and only the study that holds it, instead of choosing by rule.
            maps: keep the heat maps of every slice.
            progress: called with the stage, the slices done and their number, for each study anew.

        Raises:
            SeriesError: no study holds the series that was asked for.
        """
        for study in studies_with(archive, series_instance_uid):
            # No variable here holds the outcome: the volume can go before the next study is decoded.
            yield self.read_study(archive, study, series_instance_uid=series_instance_uid, maps=maps, progress=progress)

    def read_study(
        self,
        archive: Archive,
        study: Study,
        *,
        series_instance_uid: str | None = None,
        maps: bool = False,
        on_decoded: Callable[[DecodedSeries], None] | None = None,
        progress: StageProgress | None = None,
    ) -> StudyOutcome:
        """Decode the best series of one study and read it; if none can be read, the outcome says why.

        Args:
            archive: what ``open_archive`` found.
            study: one of its studies.
            series_instance_uid: read this series instead of choosing by rule.
            maps: keep the heat maps of every slice.
            on_decoded: called with the pixels before they are scored, to show them early; what it raises is raised.
            progress: called with the stage, the slices done and their number.
        """
        with ScoresAhead(partial(self._score_ahead, maps=maps)) as ahead:
            found = read_best_series(
                archive,
                study,
                series_instance_uid=series_instance_uid,
                threads=self.engine.threads,
                progress=_stage(progress, Stage.READING),
                begun=ahead.begin,
            )
            uid, decoded = study.study_instance_uid, found.decoded
            if decoded is None:
                return StudyOutcome(study_instance_uid=uid, reading=None, rejected=found.rejected)
            if on_decoded is not None:
                on_decoded(decoded)
            scored = ahead.result(decoded.volume, _stage(progress, Stage.SCORING))
        reading = self.read(decoded, skipped=found.skipped, maps=maps, progress=progress, scored=scored)
        return StudyOutcome(study_instance_uid=uid, reading=reading, rejected=found.rejected)

    def read(
        self,
        decoded: DecodedSeries | HounsfieldVolume,
        *,
        skipped: Iterable[tuple[str, str, int]] = (),
        maps: bool = False,
        progress: StageProgress | None = None,
        scored: Scored | None = None,
    ) -> StudyReading:
        """Read one decoded series: model inputs, scores, probabilities, findings.

        Args:
            decoded: the series in Hounsfield units (``read_series``), or a volume without headers (``read_nifti``): it
                gets UIDs made from its voxels, and the quality note ``no_dicom_headers``.
            skipped: UID, reason and number of instances of the study's other series, for the result.
            maps: keep the heat maps of every slice.
            progress: called with ``Stage.SCORING``, the slices done and their number.
            scored: what ``probabilities`` returned for this series, if it was called before.
        """
        if isinstance(decoded, HounsfieldVolume):
            decoded = series_of_volume(decoded)
        card, volume = self.bundle.card, decoded.volume
        if scored is None:
            scored = self.probabilities(volume, native=decoded.native, maps=maps, progress=progress)
        probabilities, heat_maps = scored
        findings = study_findings(
            probabilities,
            slices=decoded.slices,
            positions_mm=volume.positions_mm,
            slice_quality=decoded.slice_quality,
            quality=decoded.quality,
            skipped_series=tuple(_skipped(*series) for series in skipped),
            unread=decoded.unread,
            card=card,
        )
        return StudyReading(
            findings=findings,
            probabilities=probabilities,
            volume=volume,
            maps=heat_maps,
            preprocessing=card.preprocessing,
            calibration=card.calibration.slice,
            established=card.established,
        )

    def probabilities(
        self,
        volume: HounsfieldVolume,
        *,
        native: Sequence[tuple[HounsfieldVolume, tuple[int, ...]]] = (),
        maps: bool = False,
        progress: StageProgress | None = None,
    ) -> Scored:
        """Score one volume, wherever it comes from: a decoded series, or a dataset's cache.

        The model sees axial slices in the radiological convention, however they are stored.

        Args:
            volume: slices from feet to head.
            native: united stacks with their pixels as stored (``DecodedSeries.native``), scored in place of ``volume``.
            maps: return the heat maps of every slice too, float32 (slices, 6, height, width), as slices are stored.
            progress: called with ``Stage.SCORING``, the slices done and their number.
        """
        card, positions = self.bundle.card, volume.positions_mm
        parts = native or [(volume, tuple(range(len(volume))))]
        runs = overlapping_runs(parts, card.preprocessing.slab_mm)
        chosen = SlicesToScore(runs, len(volume), rule=card.thin_series, calibration=card.calibration.slice)
        scores = self._score(_in_order(parts), chosen, maps=maps, progress=_stage(progress, Stage.SCORING))
        logits, study = scores.logits, None
        if card.sequence is not None:
            logits, study = self._in_sequence(scores, sequence_places(positions, card.study_rule.nominal_spacing_mm))
            study = study if card.sequence.study_scores == "sequence" else None
        found = StudyProbabilities.from_logits(
            logits, positions_mm=positions, card=card, study=study, scored=chosen.scored
        )
        laid_back = None if scores.maps is None else AxisChange.of(volume.orientation).undo(scores.maps)
        return found, laid_back

    def _score_ahead(self, volume: HounsfieldVolume, progress: Progress, *, maps: bool) -> Scored:
        return self.probabilities(volume, maps=maps, progress=lambda _stage, done, total: progress(done, total))

    def _in_sequence(
        self, scores: RawScores, places: NDArray[np.intp]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Refined logits (slices, 6) and the study's (6,): every slice is corrected as its place in the series was."""
        assert scores.embeddings is not None, "the engine keeps them for a bundle with a sequence"
        before = averaged(scores.logits, places)
        refined, study = self.engine.run_sequence(averaged(scores.embeddings, places), before)
        return scores.logits + (refined - before)[places], study

    def _score(
        self, slices: Sequence[_Slice], chosen: SlicesToScore, *, maps: bool, progress: Progress | None
    ) -> RawScores:
        """Prepare and score the slices that are chosen, round by round, and fill in the others.

        Preparing runs in threads of its own, a few slices ahead of the engine.
        """
        preprocessing, count, done = self.bundle.card.preprocessing, len(slices), 0
        with ThreadPoolExecutor(_PREPARING_THREADS, thread_name_prefix="prepare") as pool:
            while len(places := chosen.following()):
                inputs = _prepared(pool, [slices[place] for place in places], preprocessing)
                chosen.add(places, self.engine.run(_counted(inputs, progress, done, count), maps=maps))
                done += len(places)
        if progress is not None and done < count:
            progress(count, count)
        return chosen.filled()


def _skipped(series_instance_uid: str, reason: str, instances: int) -> SkippedSeries:
    return SkippedSeries(series_instance_uid=series_instance_uid, reason=reason, instances=instances)


def _in_order(parts: Sequence[tuple[HounsfieldVolume, tuple[int, ...]]]) -> list[_Slice]:
    """Return each slice of the parts, in the radiological convention, in the order of their places."""
    placed = {
        place: (canonical, index)
        for canonical, places in ((volume.canonical, places) for volume, places in parts)
        for index, place in enumerate(places)
    }
    return [placed[place] for place in sorted(placed)]


def _prepared(
    pool: ThreadPoolExecutor,
    slices: Sequence[_Slice],
    preprocessing: Preprocessing,
) -> Iterator[NDArray[np.float32]]:
    """Yield the model input of every slice in order, at most ``_PREPARED_AHEAD`` of them waiting."""
    waiting: deque[Future[NDArray[np.float32]]] = deque()
    upcoming = iter(slices)
    for _ in slices:
        for volume, index in islice(upcoming, _PREPARED_AHEAD - len(waiting)):
            waiting.append(pool.submit(model_input, volume, index, preprocessing))
        yield waiting.popleft().result()


def _counted(
    inputs: Iterable[NDArray[np.float32]], progress: Progress | None, done: int, count: int
) -> Iterator[NDArray[np.float32]]:
    """Yield the inputs and report each that was taken: ``done`` of ``count`` slices were scored before."""
    for number, image in enumerate(inputs, done + 1):
        yield image
        if progress is not None:
            progress(number, count)


def _stage(progress: StageProgress | None, stage: Stage) -> Progress | None:
    """Narrow a study's progress to one of its stages."""
    return None if progress is None else partial(progress, stage)


def studies_with(archive: Archive, series_instance_uid: str | None) -> tuple[Study, ...]:
    """Return all studies, or only the one that holds the series that was asked for.

    Raises:
        SeriesError: none does.
    """
    if series_instance_uid is None:
        return archive.studies
    held = tuple(
        study
        for study in archive.studies
        if any(series.series_instance_uid == series_instance_uid for series in study.series)
    )
    if not held:
        found = sorted(series.series_instance_uid for study in archive.studies for series in study.series)
        msg = f"no series {series_instance_uid} in the input. Choose one of: {', '.join(found) or 'none was read'}"
        raise SeriesError(msg)
    return held
