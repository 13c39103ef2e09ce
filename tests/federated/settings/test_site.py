"""Site files: whose patients, where everything lies, and what a site's policy refuses."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hemoscope.data.cache import Cache
from hemoscope.errors import ConfigError, DataError
from hemoscope.federated.settings.federation import Federation
from hemoscope.federated.settings.federation_sections import PrivacyConfig, SecureAggregationConfig
from hemoscope.federated.settings.site import Policy, Site, read_site
from hemoscope.training.experiment import Experiment


@pytest.fixture
def site_file(tmp_path: Path) -> Callable[[str], Path]:
    """``site_file(more)``: a site file in a folder of its own, with more lines."""

    def write(more: str = "") -> Path:
        path = tmp_path / "site.toml"
        path.write_text(f'name = "north"\ndata = "cache"\nwork = "work"\n{more}')
        return path

    return write


def test_paths_are_relative_to_the_file_wherever_the_command_runs(
    site_file: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = site_file('patients = "lists/mine.txt"\nthreads = 2')
    monkeypatch.chdir(tmp_path.parent)
    for named in (path, path.relative_to(tmp_path.parent)):
        site = read_site(named)
        assert (site.data, site.work) == (tmp_path / "cache", tmp_path / "work")
        assert site.patients == tmp_path / "lists" / "mine.txt"
        assert site.audit_path == tmp_path / "work" / "audit.jsonl"
        assert (site.name, site.threads, site.policy) == ("north", 2, Policy())


def test_absolute_paths_stay_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "site.toml"
    path.write_text('name = "north"\ndata = "/data/cache"\nwork = "/data/work"\n')
    site = read_site(path)
    assert (site.data, site.work, site.patients) == (Path("/data/cache"), Path("/data/work"), None)


def test_a_policy_is_read(site_file: Callable[[str], Path]) -> None:
    path = site_file('[policy]\nsecure_aggregation = true\nleast_cell = 10\nallow_experiments = ["small"]')
    expected = Policy(secure_aggregation=True, least_cell=10, allow_experiments=("small",))
    assert read_site(path).policy == expected


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ("images = 3", r"site\.toml: unknown key images\. Known here: name, data, work"),
        ("patients = 3", "patients must be a path, got 3"),
        ("threads = 0", "threads must be at least 1, got 0"),
        ("[policy]\nmin_sites = 0", "policy.min_sites must be at least 1, got 0"),
        ("[policy]\nleast_cell = 0", "policy.least_cell must be at least 1, got 0"),
        ("[policy]\nmax_epochs = 0", "policy.max_epochs must be at least 1, got 0"),
        ("[policy]\nsecure = true", "policy: unknown key secure"),
    ],
)
def test_a_wrong_setting_is_refused_by_name(site_file: Callable[[str], Path], more: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        read_site(site_file(more))


def test_a_site_file_that_is_absent_incomplete_or_oddly_named_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^absent\.toml: no such site file"):
        read_site(tmp_path / "absent.toml")
    path = tmp_path / "site.toml"
    path.write_text('name = "north"\n')
    with pytest.raises(ConfigError, match=r"^site\.toml: .*missing .*'data'"):
        read_site(path)
    with pytest.raises(ConfigError, match=r"site: name '\.\./south' must begin with a letter or digit"):
        Site(name="../south", data=tmp_path, work=tmp_path)


def test_a_site_trains_on_its_own_patients_alone(hospital_cache: Cache, tmp_path: Path) -> None:
    listed = tmp_path / "mine.txt"
    listed.write_text("p3\n\n  p1 \r\n")
    site = Site(name="north", data=hospital_cache.folder, work=tmp_path, patients=listed)
    own = site.cache()
    assert set(own.manifest["patient_id"]) == {"p1", "p3"}
    assert own.manifest["image_id"].tolist() == ["p1_0", "p1_1", "p1_2", "p3_0", "p3_1", "p3_2"]
    assert own.manifest.index.tolist() == list(range(6))
    assert own.dataset == hospital_cache.dataset
    assert own.read_series("p3").volume.hounsfield.shape == (3, 64, 64)


def test_a_site_without_a_list_has_all_of_its_data(hospital_cache: Cache, tmp_path: Path) -> None:
    site = Site(name="north", data=hospital_cache.folder, work=tmp_path)
    assert site.cache().manifest.equals(hospital_cache.manifest)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"p1\nMiller^Ann\nDoe^Joe\n", r"^mine\.txt: the data lack 2 of its 3 patients\. List those prepared$"),
        (b"\n \n", r"^mine\.txt names nobody"),
        (b"\xff\xfe", r"^mine\.txt: not a readable list of patients \(UnicodeDecodeError\)"),
        (None, r"^mine\.txt: not a readable list of patients \(No such file"),
    ],
)
def test_a_list_that_does_not_fit_the_data_is_refused_without_a_patients_name(
    hospital_cache: Cache, tmp_path: Path, text: bytes | None, words: str
) -> None:
    listed = tmp_path / "mine.txt"
    if text is not None:
        listed.write_bytes(text)
    with pytest.raises(DataError, match=words):
        Site(name="north", data=hospital_cache.folder, work=tmp_path, patients=listed).cache()


def test_a_site_without_slices_or_without_prepared_data_is_refused(hospital_cache: Cache, tmp_path: Path) -> None:
    from hemoscope.data.cache import write_manifest

    empty = tmp_path / "cache"
    with pytest.raises(DataError, match=r"^cache holds no manifest\.parquet"):
        Site(name="north", data=empty, work=tmp_path).cache()
    empty.mkdir()
    write_manifest(empty, [], hospital_cache.dataset)
    with pytest.raises(DataError, match=r"^site north has no slices\. Prepare its data"):
        Site(name="north", data=empty, work=tmp_path).cache()


@pytest.mark.parametrize(
    ("policy", "changes", "sites", "words"),
    [
        (Policy(), {}, 2, None),
        (Policy(secure_aggregation=True), {}, 4, "this site trains with secure aggregation alone"),
        (Policy(secure_aggregation=True), {"secure_aggregation": SecureAggregationConfig(enabled=True)}, 4, None),
        (Policy(privacy=True), {}, 4, "this site trains with differential privacy alone"),
        (Policy(privacy=True), {"privacy": PrivacyConfig(noise_multiplier=1)}, 4, None),
        (Policy(min_sites=3), {}, 4, "this site trains with at least 3 sites alone"),
        (Policy(min_sites=3), {"min_sites": 3}, 2, "this site trains with at least 3 sites alone"),
        (Policy(min_sites=3), {"min_sites": 3}, 3, None),
        (Policy(max_epochs=1), {"local_epochs": 2}, 4, "this site trains at most 1 epochs a round"),
        (Policy(allow_experiments=("other",)), {}, 4, "this site does not allow this experiment"),
        (Policy(allow_experiments=("other", "small")), {}, 4, None),
    ],
)
def test_a_policy_says_in_one_sentence_why_a_site_takes_no_part(
    policy: Policy,
    changes: dict[str, Any],
    sites: int,
    words: str | None,
    small_experiment: Callable[..., Experiment],
) -> None:
    settings = {"weighting": "uniform", "batch_norm": "fixed", **changes}
    federation = Federation(name="trial", experiment=small_experiment(), **settings)
    assert policy.refusal(federation, sites=sites) == words
