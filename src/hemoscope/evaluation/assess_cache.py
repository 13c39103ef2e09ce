"""Scores a model on a prepared dataset: whole series are predicted, and the selected images are scored."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hemoscope.data.cache import Cache
from hemoscope.errors import DataError
from hemoscope.evaluation.assessment import Assessment
from hemoscope.evaluation.flow import Flow, Step
from hemoscope.evaluation.scored_rows import ScoredRows
from hemoscope.evaluation.strata import SliceFacts, joined_facts, series_facts
from hemoscope.evaluation.worst_errors import ScoredVolume, WorstErrors
from hemoscope.inference.predictor import Predictor, Stage
from hemoscope.inference.probabilities import Floats, StudyProbabilities
from hemoscope.labels import LABELS, Hemorrhage
from hemoscope.progress import StageProgress
from hemoscope.volume import HounsfieldVolume

if TYPE_CHECKING:
    import pandas as pd


def assess_cache(
    predictor: Predictor,
    cache: Cache,
    image_ids: Collection[str],
    *,
    gallery: int = 0,
    progress: StageProgress | None = None,
) -> Assessment:
    """Score images of a prepared dataset, each as part of its whole series.

    Series are always predicted whole, even if a split by slice divides them; only the selected images count by slice. A
    series' truth is the highest known label of all its slices.

    Args:
        predictor: the model.
        cache: the dataset.
        image_ids: the images to score.
        gallery: number of worst errors to keep for each label and kind; 0 for none.
        progress: called with ``Stage.SCORING``, the slices scored and their total.

    Raises:
        DataError: an image is not in the dataset, or a series is damaged or shorter than the manifest says.
    """
    chosen = frozenset(image_ids)
    rows = _series_rows(cache, chosen)
    worst = WorstErrors(predictor.bundle.card, gallery)
    slices, series, done = ScoredRows(), ScoredRows(), 0
    spacings: dict[str, float | None] = {}
    facts: list[SliceFacts] = []
    for name, members in rows.groupby("series_id", sort=True):
        known = _Truth.of(cache, str(name), members)
        found, heat = predictor.probabilities(known.volume, maps=gallery > 0)
        spacings[str(name)] = known.volume.slice_spacing_mm
        series.add(str(name), found.study_probabilities, known.highest, patient=known.patient, series=str(name))
        counted = [place for place, image_id in enumerate(known.image_ids) if image_id in chosen]
        for place in counted:
            scores = found.slice_probabilities[place]
            slices.add(known.image_ids[place], scores, known.labels[place], patient=known.patient, series=str(name))
        facts.append(known.facts.rows(np.array(counted, dtype=np.intp)))
        if heat is not None:
            worst.add(known.scored(found, heat, counted))
        done += len(members)
        if progress is not None:
            progress(Stage.SCORING, done, len(rows))
    return Assessment(
        slices=slices.table(),
        series=series.table(),
        series_of=tuple(slices.series),
        errors=worst.pictures() if gallery else None,
        flow=_flow(len(cache.manifest), len(chosen)),
        facts=joined_facts(facts) if facts else None,
        spacings_mm=spacings,
    )


def _series_rows(cache: Cache, chosen: frozenset[str]) -> "pd.DataFrame":
    """Return the manifest's rows of every series with a chosen image. Raises DataError for an unknown image."""
    manifest = cache.manifest
    absent = chosen - set(manifest["image_id"])
    if absent:
        msg = f"{len(absent)} images are not in this dataset, first {min(absent)}. Use its own image ids"
        raise DataError(msg)
    wanted = set(manifest.loc[manifest["image_id"].isin(chosen), "series_id"])
    return manifest[manifest["series_id"].isin(wanted)]


def _flow(images: int, chosen: int) -> Flow:
    others = Step(count=images - chosen, unit="images", reason="in other parts of the split")
    return Flow(inputs=images, unit="images in the prepared dataset", left=(others,) if others.count else ())


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Truth:
    """One series of the dataset; slices without a row in the manifest have no name and no label."""

    volume: HounsfieldVolume
    labels: Floats
    image_ids: tuple[str, ...]
    patient: str
    facts: SliceFacts

    @classmethod
    def of(cls, cache: Cache, name: str, members: "pd.DataFrame") -> "_Truth":
        series = cache.read_series(name)
        volume = series.volume
        places = members["index"].to_numpy()
        if places.max() >= len(volume):
            msg = f"{name}: the manifest names slice {places.max()} of {len(volume)}, from 0. Prepare the data again"
            raise DataError(msg)
        labels = np.full((len(volume), len(LABELS)), np.nan)
        labels[places] = members[list(LABELS)].to_numpy(dtype=np.float64, na_value=np.nan)
        image_ids = np.full(len(volume), "", dtype=object)
        image_ids[places] = members["image_id"].to_numpy()
        patient = str(members["patient_id"].iloc[0])
        masked = np.zeros(len(volume), dtype=bool)
        masked[places] = members["masked"].to_numpy(dtype=bool)
        sizes = None if series.mask is None else np.where(masked, series.mask.sum(axis=(1, 2)), np.nan)
        facts = series_facts(labels[:, LABELS.index(Hemorrhage.ANY)], outline_px=sizes)
        return cls(volume=volume, labels=labels, image_ids=tuple(image_ids), patient=patient, facts=facts)

    @property
    def highest(self) -> Floats:
        """Highest known label of its slices, (6,)."""
        return np.asarray(np.fmax.reduce(self.labels, axis=0))

    def scored(self, found: StudyProbabilities, maps: NDArray[np.float32], counted: Sequence[int]) -> ScoredVolume:
        """Return the series for the error gallery; slices that do not count get unknown labels.

        A study is looked at only if all of its slices with a label count.
        """
        judged = np.full(self.labels.shape, np.nan)
        judged[counted] = self.labels[counted]
        whole = np.isfinite(judged).sum() == np.isfinite(self.labels).sum()
        return ScoredVolume(
            volume=self.volume,
            maps=maps,
            probabilities=found.slice_probabilities,
            labels=judged,
            image_ids=self.image_ids,
            facts=self.facts,
            study=found.study_probabilities if whole else None,
        )
