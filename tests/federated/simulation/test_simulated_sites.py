"""One dataset partitioned to folders, and what the sites leave gathered again."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from hemoscope.data.cache import Cache
from hemoscope.errors import FederationError
from hemoscope.federated.simulation.simulated_sites import (
    Partitioning,
    chosen_parts,
    gather_scores,
    lay_out_sites,
    parts_of_sites,
    simulated_sites,
    site_scores_path,
)
from hemoscope.inference.calibration import StudyRule
from hemoscope.training.run_scores import out_of_fold_scores

TWO = Partitioning(sites=2, seed=5)
FOLDS = {"run": {"split": "folds", "folds": 2}}


def write_scores(path: Path, images: tuple[str, ...]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [
        {"image_id": image, "patient_id": image.split("_")[0], "series_id": image.split("_")[0]} for image in images
    ]
    table = pd.DataFrame(rows).assign(index=0, position_mm=0.0)
    for label in ("any", "epidural", "intraparenchymal", "intraventricular", "subarachnoid", "subdural"):
        table[f"logit_{label}"] = range(len(table))
    table.to_csv(path, index=False)


def test_every_patient_stands_at_one_site_and_each_site_reads_its_own_alone(
    hospital_cache: Cache, tmp_path: Path
) -> None:
    sites = lay_out_sites(hospital_cache, tmp_path / "run", TWO, threads=1)
    patients = [set(site.cache().manifest["patient_id"]) for site in sites]
    assert patients[0].isdisjoint(patients[1])
    assert patients[0] | patients[1] == set(hospital_cache.manifest["patient_id"])
    assert [site.threads for site in sites] == [1, 1]
    assert sites == simulated_sites(tmp_path / "run")


def test_the_counts_name_no_patient_and_add_up_to_the_whole(hospital_cache: Cache, tmp_path: Path) -> None:
    lay_out_sites(hospital_cache, tmp_path, TWO, threads=None)
    text = (tmp_path / "sites.json").read_text()
    counts = json.loads(text)["counts"]
    assert not [patient for patient in set(hospital_cache.manifest["patient_id"]) if f'"{patient}"' in text]
    assert sum(site["slices"] for site in counts) == len(hospital_cache.manifest)
    assert sum(site["positive_patients"]["any"] for site in counts) == 6
    assert sum(site["positive_slices"]["any"] for site in counts) == int(hospital_cache.manifest["any"].sum())


def test_a_site_file_names_the_data_from_where_it_stands(hospital_cache: Cache, tmp_path: Path) -> None:
    lay_out_sites(hospital_cache, tmp_path / "run", TWO, threads=None)
    text = (tmp_path / "run" / "sites" / "site-1" / "site.toml").read_text()
    assert str(hospital_cache.folder) not in text
    assert "threads" not in text


def test_the_same_partition_is_found_again_and_another_is_refused(hospital_cache: Cache, tmp_path: Path) -> None:
    first = lay_out_sites(hospital_cache, tmp_path, TWO, threads=1)
    assert [site.patients for site in lay_out_sites(hospital_cache, tmp_path, TWO, threads=2)] == [
        site.patients for site in first
    ]
    with pytest.raises(FederationError, match="2 sites of another partition than 2 by patient"):
        lay_out_sites(hospital_cache, tmp_path, Partitioning(sites=2, seed=6), threads=1)


def test_a_folder_without_sites_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FederationError, match="holds no simulated sites"):
        simulated_sites(tmp_path)


def test_gathered_scores_are_read_as_those_of_a_local_training(
    hospital_cache: Cache, tmp_path: Path, small_federation: Callable[..., Any]
) -> None:
    federation = small_federation(experiment=FOLDS)
    sites = lay_out_sites(hospital_cache, tmp_path, TWO, threads=1)
    parts = parts_of_sites(federation, sites)
    assert list(parts) == ["fold-0", "fold-1", "final"]
    for name in ("fold-0", "fold-1"):
        for site, part in zip(sites, parts[name], strict=True):
            write_scores(site_scores_path(federation, site, name), part.test)
        assert gather_scores(federation, tmp_path, sites, parts[name]) == tmp_path / name / "scores.csv"
    assert gather_scores(federation, tmp_path, sites, parts["final"]) is None
    scores = out_of_fold_scores(tmp_path, federation.experiment, StudyRule())
    assert len(scores.slices.patients) == len(hospital_cache.manifest)
    assert len(scores.studies.patients) == 12


def test_scores_that_are_absent_or_of_other_images_are_refused(
    hospital_cache: Cache, tmp_path: Path, small_federation: Callable[..., Any]
) -> None:
    federation = small_federation(experiment=FOLDS)
    sites = lay_out_sites(hospital_cache, tmp_path, TWO, threads=1)
    parts = parts_of_sites(federation, sites)["fold-0"]
    write_scores(site_scores_path(federation, sites[0], "fold-0"), parts[0].test)
    with pytest.raises(FederationError, match="site-2 left no scores of fold-0"):
        gather_scores(federation, tmp_path, sites, parts)
    write_scores(site_scores_path(federation, sites[1], "fold-0"), parts[1].test[1:])
    with pytest.raises(FederationError, match=r"site-2 scored \d+ images of fold-0, not exactly"):
        gather_scores(federation, tmp_path, sites, parts)
    assert not (tmp_path / "fold-0" / "scores.csv").exists()


def test_a_part_that_the_experiment_does_not_have_is_refused(
    hospital_cache: Cache, tmp_path: Path, small_federation: Callable[..., Any]
) -> None:
    sites = lay_out_sites(hospital_cache, tmp_path, TWO, threads=1)
    parts = parts_of_sites(small_federation(experiment=FOLDS), sites)
    assert chosen_parts(parts, ["final", "fold-1"]) == ("fold-1", "final")
    with pytest.raises(FederationError, match=r"no such part: fold-7\. This experiment has fold-0, fold-1, final"):
        chosen_parts(parts, ["fold-7"])
