"""Draws sheets of twenty synthetic lesions or mimics of each kind on clean slices of CT-ICH, to be judged by eye.

    python experiments/lesion_sheets.py cache/ct-ich sheets --draw mimics
    python experiments/lesion_sheets.py cache/ct-ich sheets --draw lesions

Each pair shows a slice before and after, brain window (center 40, width 80). Only slices above the orbits are used,
except for kinds that occur at the base alone; everything outside the skull is black in both, so no face is shown.
"""

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from scipy import ndimage

from hemoscope.data.cache import Cache, open_cache
from hemoscope.inference.preprocess import Preprocessing, slice_box, stacked
from hemoscope.inference.windows import BRAIN
from hemoscope.labels import SUBTYPES
from hemoscope.training.anatomy import anatomy
from hemoscope.training.mimics import Mimic, add_mimic
from hemoscope.training.stacked_lesions import synthesize_in_stack

COUNT, COLUMNS, CELL = 20, 5, 128
STACKED = Preprocessing(neighbours=1)
AT_BASE = {Mimic.BEAM_HARDENING}
Floats = NDArray[np.float32]
Change = Callable[[Floats, np.random.Generator], Floats | None]


def stacks(cache: Cache, rng: np.random.Generator) -> Iterator[Floats]:
    """Yield crops (3, S, S) of clean slices in random order, one patient after the other, without end."""
    clean = cache.manifest[cache.manifest["any"] == 0]
    while True:
        for series_id in rng.permutation(clean["series_id"].unique()):
            indices = clean.loc[clean["series_id"] == series_id, "index"].to_numpy()
            volume = cache.read_series(str(series_id)).volume
            for index in rng.choice(indices, size=min(3, len(indices)), replace=False):
                yield stacked(volume, int(index), slice_box(volume, int(index), STACKED), STACKED)


def sheet(cache: Cache, change: Change, *, base: bool, seed: int, tries: int = 600) -> tuple[Image.Image, int]:
    """Return twenty pairs, before and after, and the number of slices that were tried for them."""
    rng, pairs, tried = np.random.default_rng(seed), [], 0
    for stack in stacks(cache, rng):
        place = anatomy(stack[1])
        if len(pairs) == COUNT or tried >= tries:
            break
        if place is None or (place.at_base or place.face > 0.1) != base:
            continue
        tried += 1
        changed = change(stack, rng)
        if changed is not None:
            skull = ndimage.binary_dilation(place.inside.mask, iterations=6)
            both = [np.where(skull, BRAIN.apply(image[1]), 0) for image in (stack, changed)]
            pairs.append(_cut(np.hstack(both), skull))
    pairs += [np.zeros((CELL, 2 * CELL), dtype=np.uint8)] * (COUNT - len(pairs))
    rows = [np.hstack(pairs[start : start + COLUMNS]) for start in range(0, COUNT, COLUMNS)]
    return Image.fromarray(np.vstack(rows)), tried


def _cut(pair: Floats, skull: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Cut both halves to the skull and scale each to CELL pixels."""
    half = pair.shape[1] // 2
    rows, columns = (np.flatnonzero(skull.any(axis=axis)) for axis in (1, 0))
    side = max(rows[-1] - rows[0], columns[-1] - columns[0]) + 1
    top = max((rows[0] + rows[-1] - side) // 2, 0)
    left = max((columns[0] + columns[-1] - side) // 2, 0)
    cuts = [pair[top : top + side, start + left : min(start + left + side, start + half)] for start in (0, half)]
    images = [
        Image.fromarray((cut * 255).astype(np.uint8)).resize((CELL, CELL), Image.Resampling.BICUBIC) for cut in cuts
    ]
    return np.hstack([np.asarray(image) for image in images])


def changes(draw: str) -> dict[str, tuple[Change, bool]]:
    """Return, by file name, what changes a slice, and whether it is shown at the base."""
    if draw == "mimics":
        return {
            kind.value.replace(" ", "-"): (lambda stack, rng, kind=kind: add_mimic(stack, kind, rng), kind in AT_BASE)
            for kind in Mimic
        }
    found = {}
    for kind in SUBTYPES:

        def change(stack: Floats, rng: np.random.Generator, kind: object = kind) -> Floats | None:
            lesion = synthesize_in_stack(stack, kind, rng, "anatomical")  # type: ignore[arg-type]
            return None if lesion is None else lesion[0]

        found[kind.value] = (change, False)
        found[f"{kind.value}-base"] = (change, True)
    return found


def main() -> None:
    """Write one picture a kind."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cache", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--draw", choices=["lesions", "mimics"], required=True)
    parser.add_argument("--only", help="one kind, as its file is named")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    cache = open_cache(options.cache)
    for name, (change, base) in changes(options.draw).items():
        if options.only in (None, name):
            image, tried = sheet(cache, change, base=base, seed=options.seed)
            image.save(options.output / f"{name}.jpg", quality=80)
            Console().print(f"{name}: {COUNT} wanted, {tried} slices tried")


if __name__ == "__main__":
    main()
