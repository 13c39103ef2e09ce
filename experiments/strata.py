"""Writes what divides the slices of CT-ICH into strata, for a run whose scores do not have it.

    python experiments/strata.py CACHE patient_demographics.csv experiments/results/default/strata.csv

CACHE is CT-ICH as ``hemoscope prepare ct-ich`` wrote it, and the CSV is part of its release. The output has the size of
each slice's outline in pixels as stored and the age of its patient in years; ``experiments/refit_card.py`` and
``hemoscope export`` read it beside the run's scores. Seconds.
"""

import argparse
from pathlib import Path

import pandas as pd

from hemoscope.data.cache import open_cache


def strata(folder: Path, demographics: Path) -> pd.DataFrame:
    """Return image_id, outline_px (empty without an outline) and age of every slice."""
    cache = open_cache(folder)
    people = pd.read_csv(demographics)
    age = next(column for column in people.columns if column.startswith("Age"))
    ages = {f"ctich_{number:03d}": years for number, years in zip(people["Patient Number"], people[age], strict=True)}
    rows = []
    for series_id, members in cache.manifest.groupby("series_id"):
        mask = cache.read_series(str(series_id)).mask
        for row in members.to_dict("records"):
            size = int(mask[row["index"]].sum()) if row["masked"] and mask is not None else None
            rows.append({"image_id": row["image_id"], "outline_px": size, "age": ages[row["patient_id"]]})
    return pd.DataFrame(rows).astype({"outline_px": "Int64"})


def main() -> None:
    """Write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cache", type=Path)
    parser.add_argument("demographics", type=Path)
    parser.add_argument("output", type=Path)
    arguments = parser.parse_args()
    strata(arguments.cache, arguments.demographics).to_csv(arguments.output, index=False, float_format="%.3g")


if __name__ == "__main__":
    main()
