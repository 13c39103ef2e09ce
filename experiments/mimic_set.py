"""Adds one mimic of blood to clean slices of CT-ICH and counts how many rise above the slice threshold of ``any``.

    python experiments/mimic_set.py cache/ct-ich --slices 400
    python experiments/mimic_set.py cache/ct-ich --bundle BUNDLE --only runs/RUN/fold-0/scores.csv

Every slice is scored before and after, by the chain that serves it, in its series (slices beside it count where the
bundle smooths or stacks them). A slice rises if it was below the threshold and then reaches it. Intervals: bootstrap by
patient. ``--only`` takes the slices of a file of scores: those a fold of a run held out. Without it, a bundle that was
trained on CT-ICH has seen the slices, but not the mimics.

The mimics come from ``mimic_objects.py``, which training does not use; here each kind gets its place: positions are in
half axes of the brain, and heights in slices from the slice with most brain, about that of the lateral ventricles.
"""

import argparse
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from mimic_objects import (
    HEAD_MM,
    SLICE_MM,
    Floats,
    Frame,
    Solid,
    beam_hardening,
    brain_of,
    ellipsoid,
    filled,
    frame_of,
    metal,
    motion,
    noise,
    prism,
    replaced,
    sheet,
    tube,
)
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from hemoscope.data.cache import Cache, open_cache
from hemoscope.inference.bundle import load_bundle
from hemoscope.inference.predictor import Predictor
from hemoscope.inference.preprocess import model_input
from hemoscope.inference.probabilities import StudyProbabilities
from hemoscope.labels import LABELS
from hemoscope.volume import HounsfieldVolume

ROUNDS = 2000
SMOOTHED = 3  # slices of 5 mm on either side that a Gaussian of 7.5 mm gives a share of more than a hundredth
Random = np.random.Generator


@dataclass(frozen=True, slots=True)
class Placed:
    """A solid, where it lies (row, column), its HU, how far it reaches in mm, and its height over the slice in mm."""

    solid: Solid
    center: tuple[float, float]
    level: float
    reach_mm: float
    z_mm: float = 0.0


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of mimic: the slices it occurs in, relative to that with most brain, and what makes it."""

    lowest: int
    highest: int
    objects: Callable[[Frame, Random], list[Placed]] | None = None
    artefact: Callable[[Floats, Frame, Random], Floats] | None = None


def _calcium(rng: Random) -> float:
    return float(np.exp(rng.uniform(np.log(80), np.log(300))))


def _grains(frame: Frame, rng: Random, right: float, back: float, *, spread_mm: float = 2.0) -> list[Placed]:
    """One to four ellipsoids of calcium of 1 to 6 mm about a place."""
    row, column = frame.pixel(right, back)
    found = []
    for _ in range(int(rng.integers(1, 5))):
        half = np.exp(rng.uniform(np.log(0.5), np.log(3.0), size=3))
        at = (row + rng.normal(0, spread_mm) / frame.mm, column + rng.normal(0, spread_mm) / frame.mm)
        solid = ellipsoid((half[0], half[1], half[2]), rng.uniform(0, np.pi))
        found.append(Placed(solid, at, _calcium(rng), 4, rng.uniform(-2, 2)))
    return found


def choroid(frame: Frame, rng: Random) -> list[Placed]:
    """Calcium in the glomus of one or both sides."""
    right, back = rng.uniform(0.25, 0.4), rng.uniform(0.2, 0.42)
    sides = (-1, 1) if rng.random() < 0.7 else (1,)
    return [part for side in sides for part in _grains(frame, rng, side * right, back)]


def pineal(frame: Frame, rng: Random) -> list[Placed]:
    """Calcium in the midline."""
    return _grains(frame, rng, rng.uniform(-0.03, 0.03), rng.uniform(0.05, 0.2), spread_mm=1.0)


def falx_calcium(frame: Frame, rng: Random) -> list[Placed]:
    """A flat plaque in the midline, high in z."""
    half = (rng.uniform(0.4, 1.5), rng.uniform(1.5, 7), rng.uniform(2, 6))
    at = frame.pixel(0.0, rng.choice([rng.uniform(-0.9, -0.4), rng.uniform(0.5, 0.9)]))
    return [Placed(ellipsoid(half, frame.turn), at, _calcium(rng), 8, rng.uniform(-2, 2))]


def basal_ganglia(frame: Frame, rng: Random) -> list[Placed]:
    """Blotches of faint calcium on both sides."""
    right, back, level = rng.uniform(0.28, 0.4), rng.uniform(-0.25, 0.0), rng.uniform(55, 150)
    found = []
    for side in (-1, 1):
        for _ in range(int(rng.integers(2, 7))):
            row, column = frame.pixel(side * right, back)
            half = (rng.uniform(0.6, 2.0), rng.uniform(1.0, 4.0), rng.uniform(1, 4))
            at = (row + rng.normal(0, 3) / frame.mm, column + rng.normal(0, 2) / frame.mm)
            found.append(Placed(ellipsoid(half, side * 0.4), at, level * rng.uniform(0.7, 1.3), 5))
    return found


def dense_falx(frame: Frame, rng: Random) -> list[Placed]:
    """A membrane in the midline from the front, the back or both."""
    level, thick = rng.uniform(50, 75), rng.uniform(1.0, 3.0)
    found = []
    for start, stop in ((-0.97, rng.uniform(-0.5, -0.1)), (rng.uniform(0.2, 0.5), 0.97)):
        at = frame.pixel(0.0, (start + stop) / 2)
        long = (stop - start) / 2 * frame.half[0] * frame.mm
        ends = np.array([[np.sin(frame.turn), -np.cos(frame.turn)], [-np.sin(frame.turn), np.cos(frame.turn)]]) * long
        found.append(Placed(sheet(ends, thick, 0.0), at, level, long + 3))
    return found


def tentorium(frame: Frame, rng: Random) -> list[Placed]:
    """Two leaves that lean outward: thick slices show them as broad, faint bands."""
    level, thick, start = rng.uniform(48, 66), rng.uniform(1.2, 3.0), rng.uniform(0.35, 0.6)
    outer, bow = (rng.uniform(0.5, 0.8), rng.uniform(-0.1, 0.7)), rng.uniform(0.0, 0.12)
    middle = frame.pixel(0.0, start)
    found = []
    for side in (-1, 1):
        way = np.linspace(0.03, 1, 6)[:, None]
        relative = np.hstack([side * outer[0] * way, start + (outer[1] - start) * way - bow * np.sin(np.pi * way)])
        pixels = np.array([frame.pixel(x, y) for x, y in relative])
        points = (pixels - middle)[:, ::-1] * frame.mm
        found.append(
            Placed(sheet(points, thick, rng.uniform(0.3, 1.2)), middle, level, float(np.abs(points).max()) + 8)
        )
    return found


def sinus(frame: Frame, rng: Random) -> list[Placed]:
    """A dense superior sagittal sinus at the back."""
    at = frame.pixel(rng.uniform(-0.03, 0.03), 1.0)
    solid = prism(rng.uniform(8, 16), rng.uniform(6, 13), -frame.turn)
    return [Placed(solid, at, rng.uniform(60, 76), 17)]


def vessel(frame: Frame, rng: Random) -> list[Placed]:
    """A bright basilar artery across the slice, or a middle cerebral artery in it."""
    level, radius = rng.uniform(55, 80), rng.uniform(1.2, 2.4)
    at = frame.pixel(rng.uniform(-0.05, 0.05), rng.uniform(-0.2, 0.0))
    if rng.random() < 0.5:
        points = np.array([[0.0, 1.0, -10.0], [rng.uniform(-1, 1), -1.0, 10.0]])
        return [Placed(tube(points, radius), at, level, 6)]
    side, count = int(rng.choice([-1, 1])), 6
    right = np.linspace(4, rng.uniform(20, 38), count)
    points = np.column_stack([side * right, -4 - 3 * np.sin(right / 9), np.linspace(0, rng.uniform(-3, 3), count)])
    return [Placed(tube(points, radius), at, level, 45)]


def shunt(frame: Frame, rng: Random) -> list[Placed]:
    """A hollow catheter from the skull to the ventricle, oblique to the slice."""
    side = int(rng.choice([-1, 1]))
    tip = np.array(frame.pixel(side * rng.uniform(0.03, 0.2), rng.uniform(-0.3, 0.2)))
    entry = np.array(frame.pixel(side * rng.uniform(0.4, 0.6), float(rng.choice([-0.75, 0.75]))))
    way = (entry - tip)[::-1] * frame.mm
    points = np.array([[0.0, 0.0, rng.uniform(-4, 4)], [way[0], way[1], rng.uniform(-12, 25)]])
    wall, lumen = tube(points, 1.3), tube(points, 0.7)
    at, reach = (float(tip[0]), float(tip[1])), float(np.hypot(*way)) + 3
    return [Placed(wall, at, rng.uniform(150, 400), reach), Placed(lumen, at, 5, reach)]


def clip(hounsfield: Floats, frame: Frame, rng: Random) -> Floats:
    """A metal clip near the circle of Willis."""
    return metal(hounsfield, frame, frame.pixel(rng.uniform(-0.35, 0.35), rng.uniform(-0.4, 0.0)), rng)


KINDS = {
    "choroid plexus calcium": Kind(-3, 1, choroid),
    "pineal calcium": Kind(-3, 0, pineal),
    "falx calcium": Kind(1, 7, falx_calcium),
    "basal ganglia calcium": Kind(-3, 0, basal_ganglia),
    "dense falx": Kind(0, 7, dense_falx),
    "dense tentorium": Kind(-5, -1, tentorium),
    "dense sinus": Kind(-3, 7, sinus),
    "bright vessel": Kind(-6, -2, vessel),
    "shunt catheter": Kind(-1, 5, shunt),
    "beam hardening": Kind(-9, -3, artefact=beam_hardening),
    "metal clip": Kind(-6, -2, artefact=clip),
    "motion": Kind(-8, 9, artefact=lambda hounsfield, _, rng: motion(hounsfield, rng)),
    "noise": Kind(-8, 9, artefact=lambda hounsfield, _, rng: noise(hounsfield, rng)),
}


def with_mimic(
    volume: HounsfieldVolume, index: int, kind: Kind, frame: Frame, rng: Random, *, beside: int
) -> HounsfieldVolume | None:
    """Return the volume with a mimic in a slice, and what reaches ``beside`` slices on; None if nothing changed.

    An artefact lasts for one, three or five slices, as far as ``beside`` allows.
    """
    new = np.array(volume.hounsfield)
    if kind.artefact is not None:
        lasts = min(int(rng.integers(3)), beside)
        for i in range(max(index - lasts, 0), min(index + lasts + 1, len(new))):
            new[i] = _stored(kind.artefact(new[i].astype(np.float64), frame, rng))
    else:
        assert kind.objects is not None
        objects = kind.objects(frame, rng)
        for i in range(max(index - beside, 0), min(index + beside + 1, len(new))):
            part = new[i].astype(np.float64)
            for one in objects:
                share = filled(one.solid, one.center, (i - index) * SLICE_MM - one.z_mm, one.reach_mm, frame)
                part = replaced(part, share, one.level, frame)
            new[i] = _stored(part)
    if np.array_equal(new[index], volume.hounsfield[index]):
        return None
    return replace(volume, hounsfield=new)


def _stored(hounsfield: Floats) -> NDArray[np.int16]:
    return np.clip(np.rint(hounsfield), -1024, 3071).astype(np.int16)


class Scorer:
    """Scores slices of one series as the predictor does, but no slice that cannot matter.

    A bundle that smooths over slices needs the whole series once; one that stacks or smooths needs the slices beside a
    mimic again. Bundles with a sequence network are refused.
    """

    def __init__(self, predictor: Predictor, volume: HounsfieldVolume) -> None:
        """Score the series if the bundle smooths."""
        card = predictor.bundle.card
        if card.sequence is not None:
            raise SystemExit("a bundle with a sequence network is not measured")
        self.predictor, self.volume = predictor, volume
        self.beside = SMOOTHED if card.slice_rule is not None else card.preprocessing.neighbours
        self.logits = np.zeros((len(volume), len(LABELS)), dtype=np.float32)
        if card.slice_rule is not None:
            self.logits = self._scored(volume, range(len(volume)))

    def _scored(self, volume: HounsfieldVolume, places: Iterable[int]) -> NDArray[np.float32]:
        settings = self.predictor.bundle.card.preprocessing
        return self.predictor.engine.run(model_input(volume, i, settings) for i in places).logits

    def before_and_after(self, changed: HounsfieldVolume, index: int) -> tuple[float, float]:
        """Return the probability of ``any`` of a slice, without and with the change."""
        card, new = self.predictor.bundle.card, np.array(self.logits)
        if card.slice_rule is None:
            self.logits[index] = self._scored(self.volume, [index])[0]
        reach = self.beside + card.preprocessing.neighbours if self.beside else 0
        places = list(range(max(index - reach, 0), min(index + reach + 1, len(new))))
        new[places] = self._scored(changed, places)
        return self._any(self.logits)[index], self._any(new)[index]

    def _any(self, logits: NDArray[np.float32]) -> list[float]:
        card = self.predictor.bundle.card
        positions = self.volume.positions_mm
        if None in positions:  # CT-ICH states none; slice_rule.py takes its slices as nominally spaced, too
            positions = tuple(SLICE_MM * np.arange(len(logits)))
        found = StudyProbabilities.from_logits(logits, positions_mm=positions, card=card)
        return list(map(float, found.slice_probabilities[:, 0]))


def measure(cache: Cache, predictor: Predictor, allowed: set[str] | None, *, slices: int, seed: int) -> pd.DataFrame:
    """Return one row a clean slice with its one mimic: patient, kind, probability of ``any`` before and after.

    Kinds take turns; patients too, so that the sample is spread over them.
    """
    rng = np.random.default_rng(seed)
    clean = cache.manifest[cache.manifest["any"] == 0]
    if allowed is not None:
        clean = clean[clean["image_id"].isin(allowed)]
    every = sorted(clean["series_id"].unique())
    quota = int(np.ceil(slices / len(every)))
    names, turn, found = list(KINDS), 0, []
    for series_id in rng.permutation(every):
        rows = clean[clean["series_id"] == series_id]
        volume = cache.read_series(str(series_id)).volume.canonical
        brains = [brain_of(part) for part in volume.hounsfield]
        areas = np.array([brain.sum() for brain in brains])
        if not areas.any():
            continue
        most = int(areas.argmax())
        mm = HEAD_MM / max(int((part > -200).mean(axis=1).__gt__(0.1).sum()) for part in volume.hounsfield)
        scorer = Scorer(predictor, volume)
        free = set(rows["index"].astype(int)) & set(np.flatnonzero(areas > 0.2 * areas.max()).tolist())
        for _ in range(quota):
            name = names[turn % len(names)]
            turn += 1
            kind = KINDS[name]
            fitting = [i for i in sorted(free) if kind.lowest <= i - most <= kind.highest]
            if not fitting:
                continue
            index = int(rng.choice(fitting))
            changed = with_mimic(
                volume, index, kind, frame_of(brains[index], volume.hounsfield.shape[1:], mm), rng, beside=scorer.beside
            )
            if changed is None:
                continue
            free.discard(index)
            before, after = scorer.before_and_after(changed, index)
            found.append((rows["patient_id"].iloc[0], name, series_id, index, before, after))
    return pd.DataFrame(found, columns=["patient", "kind", "series", "index", "before", "after"])


def interval(rows: pd.DataFrame, rng: Random) -> tuple[float, float]:
    """95% interval of the share that rises: bootstrap by patient."""
    by_patient = rows.groupby("patient")["rises"].agg(["sum", "size"]).to_numpy(dtype=np.float64)
    drawn = by_patient[rng.integers(len(by_patient), size=(ROUNDS, len(by_patient)))].sum(axis=1)
    low, high = np.percentile(drawn[:, 0] / drawn[:, 1], [2.5, 97.5])
    return float(low), float(high)


def main() -> None:
    """Print one row a kind, and all kinds together."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cache", type=Path)
    parser.add_argument("--bundle", type=Path, help="by default the shipped one")
    parser.add_argument("--only", type=Path, metavar="SCORES.csv", help="a table with image_id: only these slices")
    parser.add_argument("--slices", type=int, default=400)
    parser.add_argument("--seed", type=int, default=16)
    parser.add_argument("--write", type=Path, metavar="ROWS.csv")
    options = parser.parse_args()
    allowed = None if options.only is None else set(pd.read_csv(options.only)["image_id"])
    predictor = Predictor(load_bundle(options.bundle), threads=1)
    rows = measure(open_cache(options.cache), predictor, allowed, slices=options.slices, seed=options.seed)
    threshold = predictor.bundle.card.operating_points.slice["any"].threshold
    rows["rises"] = (rows["before"] < threshold) & (rows["after"] >= threshold)
    if options.write is not None:
        rows.to_csv(options.write, index=False, float_format="%.5f")
    table = Table(title=f"slices of `any` at {threshold:.3f} or more; bundle {predictor.bundle.card.version}")
    for column in ("mimic", "slices", "patients", "above before", "rises", "share", "95%", "mean change", "largest"):
        table.add_column(column)
    rng = np.random.default_rng(0)
    for name, part in [*rows.groupby("kind"), ("all", rows)]:
        low, high = interval(part, rng)
        change = part["after"] - part["before"]
        counts = (
            len(part),
            part["patient"].nunique(),
            int((part["before"] >= threshold).sum()),
            int(part["rises"].sum()),
        )
        shown = (
            f"{part['rises'].mean():.3f}",
            f"{low:.3f} to {high:.3f}",
            f"{change.mean():+.3f}",
            f"{change.max():+.3f}",
        )
        table.add_row(str(name), *map(str, counts), *shown)
    Console(width=140).print(table)


if __name__ == "__main__":
    main()
