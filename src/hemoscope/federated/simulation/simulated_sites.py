"""The sites of a simulation: one prepared dataset dealt out to folders that each look like a hospital's.

``RUN/sites/site-1`` ... hold ``site.toml``, ``patients.txt`` and ``work/``; ``RUN/sites.json`` says how the patients
were dealt out and counts what each site has. Ids stand in ``patients.txt`` alone. In a simulation, and only there, one
machine can read every site's scores: they are gathered as a local training leaves them.
"""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from hemoscope.data.cache import Cache
from hemoscope.errors import FederationError
from hemoscope.federated.settings.federation import Federation
from hemoscope.federated.settings.site import Site, read_site
from hemoscope.federated.settings.site_policy import part_folder
from hemoscope.federated.simulation.partition import By, partition
from hemoscope.files import atomic_path, write_text
from hemoscope.labels import LABELS
from hemoscope.training.data_splits import SPLIT, DataSplit, make_data_splits
from hemoscope.training.run_folder import write_json

SITES, COUNTS, SLICES = "sites", "sites.json", "slices.csv"
_IDS = {"image_id": str, "patient_id": str, "series_id": str}
_NAMES = [label.value for label in LABELS]


@dataclass(frozen=True, slots=True, kw_only=True)
class Dealing:
    """How patients are dealt out to sites; see :func:`hemoscope.federated.simulation.partition.partition`.

    Attributes:
        sites: how many.
        by: ``patient``, ``by-type`` or ``dirichlet``.
        seed: of the chances in it.
        uneven: relative size of each site; empty lets sizes fall in equal steps.
    """

    sites: int = 4
    by: By = "patient"
    seed: int = 257
    uneven: tuple[float, ...] = ()


def lay_out_sites(cache: Cache, run: Path, dealing: Dealing, *, threads: int | None) -> tuple[Site, ...]:
    """Make the folders of all sites, or find those of the same dealing again.

    Args:
        cache: all patients.
        run: folder of the run.
        dealing: who gets whom.
        threads: of PyTorch at each site; may differ from one call to the next.

    Raises:
        FederationError: the run's sites were dealt out otherwise.
        ConfigError: what cannot be dealt out so, as ``partition`` says.
    """
    dealt = partition(cache, sites=dealing.sites, by=dealing.by, seed=dealing.seed, uneven=dealing.uneven or None)
    _check_same_dealing(run, dealing, dealt)
    for number, patients in enumerate(dealt, start=1):
        folder = site_folder(run, number)
        (folder / "work").mkdir(parents=True, exist_ok=True)
        write_text(folder / "patients.txt", "".join(f"{patient}\n" for patient in patients))
        data = os.path.relpath(cache.folder.resolve(), folder.resolve())
        write_text(folder / "site.toml", _site_text(number, data, threads))
    write_json(run / COUNTS, {**asdict(dealing), "counts": [_counts(cache, patients) for patients in dealt]})
    with atomic_path(run / SLICES) as draft:
        cache.manifest[["image_id", "patient_id", *_NAMES]].to_csv(draft, index=False)
    return simulated_sites(run)


def simulated_sites(run: Path) -> tuple[Site, ...]:
    """The sites of a run, in order. Raises FederationError where it has none."""
    count = sum(1 for path in (run / SITES).glob("site-*") if (path / "site.toml").is_file())
    if not count:
        msg = (
            f"{run.name} holds no simulated sites. Make them with: hemoscope federated simulate ... --output {run.name}"
        )
        raise FederationError(msg)
    return tuple(read_site(site_folder(run, number) / "site.toml") for number in range(1, count + 1))


def site_folder(run: Path, number: int) -> Path:
    """The folder of a site, numbered from 1."""
    return run / SITES / f"site-{number}"


def parts_of_sites(federation: Federation, sites: Sequence[Site]) -> dict[str, tuple[DataSplit, ...]]:
    """Each part of the experiment by name, as each site makes it of its own patients."""
    made = [make_data_splits(federation.experiment, site.cache()) for site in sites]
    return {parts[0].name: parts for parts in zip(*made, strict=True)}


def chosen_parts(parts: Mapping[str, tuple[DataSplit, ...]], only: Sequence[str]) -> tuple[str, ...]:
    """Names of parts, all or those asked for. Raises FederationError for a name that the experiment does not have."""
    unknown = sorted(set(only) - set(parts))
    if unknown:
        msg = f"no such part: {', '.join(unknown)}. This experiment has {', '.join(parts)}"
        raise FederationError(msg)
    return tuple(name for name in parts if not only or name in only)


def score_file(part: str) -> str:
    """The name of the file with scores of what a part held out, as training calls it."""
    return "scores-test.csv" if part == SPLIT else "scores.csv"


def gather_scores(federation: Federation, run: Path, sites: Sequence[Site], parts: Sequence[DataSplit]) -> Path | None:
    """Put one part's scores of all sites together as a local training leaves them; None where it held nothing out.

    Args:
        federation: that was simulated.
        run: its folder.
        sites: in order.
        parts: the same part as each of the sites made it.

    Raises:
        FederationError: a site left no scores, or not those of exactly its held-out images.
    """
    part = parts[0].name
    if not any(site_part.test for site_part in parts):
        return None
    tables = [_site_scores(federation, site, own) for site, own in zip(sites, parts, strict=True) if own.test]
    path = run / part / score_file(part)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as draft:
        pd.concat(tables, ignore_index=True).to_csv(draft, index=False, float_format="%.6g")
    return path


def site_scores_path(federation: Federation, site: Site, part: str) -> Path:
    """Where a site keeps its own scores of a part."""
    return part_folder(site, federation, part) / score_file(part)


def _site_scores(federation: Federation, site: Site, part: DataSplit) -> pd.DataFrame:
    path = site_scores_path(federation, site, part.name)
    if not path.is_file():
        msg = f"{site.name} left no scores of {part.name}. Was it there in the last round? Run again with --resume"
        raise FederationError(msg)
    table = pd.read_csv(path, dtype=_IDS)
    if sorted(table["image_id"]) != sorted(part.test):
        msg = f"{site.name} scored {len(table)} images of {part.name}, not exactly the {len(part.test)} held out"
        raise FederationError(msg)
    return table


def _site_text(number: int, data: str, threads: int | None) -> str:
    """A site file; JSON's strings are TOML's."""
    lines = [f'name = "site-{number}"', f"data = {json.dumps(data)}", 'work = "work"', 'patients = "patients.txt"']
    return "\n".join([*lines, *([] if threads is None else [f"threads = {threads}"]), ""])


def _counts(cache: Cache, patients: Sequence[str]) -> dict[str, Any]:
    """What one site has: patients and slices, and how many of either are known to bleed, by label."""
    own = cache.manifest[cache.manifest["patient_id"].astype(str).isin(set(patients))]
    by_patient = own.groupby("patient_id")[_NAMES].max()
    return {
        "patients": len(patients),
        "slices": len(own),
        "positive_patients": {name: int((by_patient[name] == 1).sum()) for name in _NAMES},
        "positive_slices": {name: int((own[name] == 1).sum()) for name in _NAMES},
    }


def _check_same_dealing(run: Path, dealing: Dealing, dealt: Sequence[Sequence[str]]) -> None:
    if not (run / COUNTS).is_file():
        return
    there = [
        tuple(site_folder(run, number).joinpath("patients.txt").read_text().splitlines())
        for number in range(1, json.loads((run / COUNTS).read_text())["sites"] + 1)
    ]
    if there != [tuple(patients) for patients in dealt]:
        msg = f"{run.name} holds {len(there)} sites that were dealt out otherwise than {dealing.sites} by {dealing.by}"
        remedy = "Choose a new --output, or take --sites, --partition, --shares and --seed back"
        raise FederationError(f"{msg}. {remedy}")
