"""Partitions: each patient at one site, nobody left out, the same every time, and sites that differ as promised."""

from collections import Counter
from pathlib import Path
from typing import Any, get_args

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hemoscope.data.cache import COLUMNS, Cache
from hemoscope.errors import ConfigError, DataError
from hemoscope.federated.simulation.partition import LEAST_PATIENTS, By, partition
from hemoscope.inference.card import TrainingData
from hemoscope.labels import LABELS, SUBTYPES

KINDS = get_args(By)
DATASET = TrainingData(name="made", version="1", doi="none", license="Apache-2.0", attribution="us", changes="none")


def cache_of(patients: list[frozenset[str] | None]) -> Cache:
    """Two slices a patient, the second with its hemorrhages (type names, or ``any`` alone); None is unknown."""
    rows: list[dict[str, Any]] = []
    for number, shown in enumerate(patients):
        for index in range(2):
            ids = {"image_id": f"{number}-{index}", "patient_id": f"p{number}", "study_id": "", "series_id": ""}
            bleeds = shown if index else frozenset[str]()
            known = {
                label.value: None if bleeds is None else int(label.value in bleeds or (label == "any" and bool(bleeds)))
                for label in LABELS
            }
            rows.append({**ids, "index": index, "masked": False, **known})
    table = pd.DataFrame.from_records(rows, columns=list(COLUMNS)).astype(dict.fromkeys(LABELS, "Int8"))
    return Cache(Path("nowhere"), table, DATASET)


def bleeding(cache: Cache) -> set[str]:
    table = cache.manifest
    return set(table.loc[(table["any"] == 1).fillna(value=False), "patient_id"])


names = [label.value for label in SUBTYPES]
bleeds = st.frozensets(st.sampled_from([*names, "any"]), min_size=1, max_size=3)
patients = st.lists(st.none() | st.just(frozenset[str]()) | bleeds, min_size=1, max_size=80)


@settings(max_examples=60, deadline=None)
@given(patients, st.integers(2, 6), st.sampled_from(KINDS), st.integers(0, 5), st.sampled_from([0.01, 0.5, 100.0]))
def test_every_patient_stands_at_one_site_and_every_site_can_train_and_be_scored(
    shown: list[frozenset[str] | None], sites: int, by: By, seed: int, alpha: float
) -> None:
    cache = cache_of(shown)
    everyone, positive = {f"p{number}" for number in range(len(shown))}, bleeding(cache)
    enough = len(everyone) >= sites * LEAST_PATIENTS and min(len(positive), len(everyone - positive)) >= sites
    if not enough:
        with pytest.raises(DataError, match=rf"{len(everyone)} patients, {len(positive)} with .* Use fewer sites"):
            partition(cache, sites=sites, by=by, seed=seed, alpha=alpha)
        return
    patients_by_site = partition(cache, sites=sites, by=by, seed=seed, alpha=alpha)
    assert len(patients_by_site) == sites
    assert Counter(patient for site in patients_by_site for patient in site) == Counter(everyone)
    for site in patients_by_site:
        assert len(site) >= LEAST_PATIENTS
        assert set(site) & positive
        assert set(site) - positive
    rows_reversed = Cache(cache.folder, cache.manifest.iloc[::-1], DATASET)
    assert partition(rows_reversed, sites=sites, by=by, seed=seed, alpha=alpha) == patients_by_site


HOSPITALS = cache_of(
    [frozenset[str]()] * 60
    + [frozenset({"epidural"})] * 16
    + [frozenset({"subdural", "epidural"})] * 8
    + [frozenset({"intraventricular", "epidural"})] * 4
    + [frozenset({"subarachnoid"})] * 12
)


@pytest.mark.parametrize("by", KINDS)
def test_another_seed_makes_other_sites(by: By) -> None:
    assert partition(HOSPITALS, sites=4, by=by, seed=1) != partition(HOSPITALS, sites=4, by=by, seed=2)


def test_by_patient_the_sites_are_as_uneven_as_asked() -> None:
    assert [len(site) for site in partition(HOSPITALS, sites=4, by="patient")] == [40, 30, 20, 10]
    uneven = partition(HOSPITALS, sites=4, by="patient", uneven=(1, 1, 1, 7))
    assert [len(site) for site in uneven] == [10, 10, 10, 70]


def test_by_type_each_rarest_type_is_at_one_site_and_patients_without_any_are_split_unevenly() -> None:
    patients_by_site = partition(HOSPITALS, sites=4, by="by-type")
    table = HOSPITALS.manifest
    carriers = {name: set(table.loc[table[name] == 1, "patient_id"]) for name in names}
    for name in ("subdural", "intraventricular", "subarachnoid"):  # the rarest type of everybody who has one
        assert sorted(len(carriers[name] & set(site)) for site in patients_by_site)[:3] == [0, 0, 0]
    normal = [len(set(site) - bleeding(HOSPITALS)) for site in patients_by_site]
    assert normal == [24, 18, 12, 6]


def test_by_type_more_sites_than_types_share_the_commonest() -> None:
    cache = cache_of([frozenset[str]()] * 20 + [frozenset({"epidural"})] * 20)
    patients_by_site = partition(cache, sites=4, by="by-type")
    assert [len(set(site) & bleeding(cache)) for site in patients_by_site] == [5, 5, 5, 5]


def test_dirichlet_sites_are_alike_for_a_large_alpha_and_unlike_for_a_small_one() -> None:
    def spread(alpha: float) -> float:
        patients_by_site = [partition(HOSPITALS, sites=4, by="dirichlet", alpha=alpha, seed=seed) for seed in range(10)]
        return sum(max(map(len, sites)) - min(map(len, sites)) for sites in patients_by_site) / len(patients_by_site)

    assert spread(10_000) < 8 < 24 < spread(0.1)


def test_fewer_patients_a_site_can_be_asked_for() -> None:
    cache = cache_of([frozenset[str]()] * 3 + [frozenset({"any"})] * 3)
    patients_by_site = partition(cache, sites=3, by="patient", least=1)
    assert sorted(len(site) for site in patients_by_site) == [2, 2, 2]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"by": "hospital"}, "a partition must be one of patient, by-type, dirichlet, got hospital"),
        ({"sites": 1}, "at least 2 sites, alpha above 0 and at least 1 patient a site, got 1 sites"),
        ({"alpha": 0.0}, "alpha above 0 .* got 4 sites, alpha 0.0"),
        ({"least": 0}, "at least 1 patient a site, got .* 0 patients"),
        ({"uneven": (0.5, 0.5)}, r"one share above 0 for each of the 4 sites, got \[0.5, 0.5\]"),
        ({"uneven": (1, 1, 1, 0)}, r"one share above 0 for each of the 4 sites, got \[1, 1, 1, 0\]"),
    ],
)
def test_a_wrong_setting_is_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        partition(HOSPITALS, **{"sites": 4, "by": "patient", **changes})
