"""The project's own files agree: pins with ranges, tasks with the README, the package with what it may weigh."""

import os
import re
import subprocess
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import hemoscope

REPOSITORY = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
FRAMEWORKS = {"torch", "torchvision", "timm", "lightning", "flwr", "tensorflow", "jax"}
PINNED = {"base": PROJECT["dependencies"]} | PROJECT["optional-dependencies"]
MEGABYTE = 1_000_000


def pins(name: str) -> dict[str, str]:
    """The pins of one constraints file and of those that it includes."""
    found: dict[str, str] = {}
    for line in (REPOSITORY / "constraints" / f"{name}.txt").read_text().splitlines():
        if line.startswith("-c "):
            found |= pins(line.removeprefix("-c ").removesuffix(".txt").strip())
        elif line and not line.startswith("#"):
            package, _, number = line.partition("==")
            assert number, f"constraints/{name}.txt pins nothing with {line!r}"
            found[canonicalize_name(package)] = number
    return found


@pytest.mark.parametrize("extra", PINNED)
def test_every_dependency_is_pinned_within_its_range(extra: str) -> None:
    pinned = pins(extra)
    for requirement in map(Requirement, PINNED[extra]):
        if requirement.name != "hemoscope":
            number = pinned[canonicalize_name(requirement.name)]
            assert requirement.specifier.contains(number), f"{number} is outside {requirement}"


def test_the_hashes_are_of_the_pinned_versions() -> None:
    lines = (REPOSITORY / "constraints" / "base.hashes.txt").read_text().splitlines()
    found = [re.fullmatch(r"(\S+)==(\S+) --hash=sha256:[0-9a-f]{64}", line) for line in lines if line[0] != "#"]
    assert {canonicalize_name(one[1]): one[2] for one in found} == pins("base"), "run: make hashes"


def test_the_base_holds_no_deep_learning_framework() -> None:
    assert not FRAMEWORKS & set(pins("base"))


@pytest.mark.parametrize("environment", ["train", "federated"])
def test_torch_and_torchvision_come_in_one_call(environment: str) -> None:
    names = {Requirement(requirement).name for requirement in PINNED["train"]}
    assert {"torch", "torchvision"} <= names
    assert {"torch", "torchvision"} <= set(pins(environment))


def test_federated_training_has_an_environment_of_its_own_with_the_same_networks() -> None:
    """Weights go from one environment to the other: what computes with them must be the same."""
    ours, theirs = pins("train"), pins("federated")
    assert {name: theirs[name] for name in ("torch", "timm", "lightning", "numpy")} == {
        name: ours[name] for name in ("torch", "timm", "lightning", "numpy")
    }


def test_the_installed_version_is_that_of_the_source() -> None:
    assert version("hemoscope") == hemoscope.__version__


TARGETS = ("setup", "setup-train", "setup-dev", "setup-federated", "demo", "test", "test-journeys", "coverage")


@pytest.mark.parametrize(
    "target",
    [*TARGETS, "test-slow", "test-federated", "torture", "bench", "check", "format", "docs", "dist", "clean", "help"],
)
def test_make_help_lists_every_task(target: str) -> None:
    done = subprocess.run(["make", "-s", "help"], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert re.search(rf"^  make {target} +\S", done.stdout, re.MULTILINE)


def test_an_old_python_is_refused_with_the_remedy(tmp_path: Path) -> None:
    old = tmp_path / "python"
    old.write_text(
        "#!/bin/sh\nexec python3 -c \"import sys; sys.version_info = (3, 10, 9); sys.version = '3.10.9 old'; $2\"\n"
    )
    old.chmod(0o755)
    done = subprocess.run(
        ["make", "setup", f"PYTHON={old}", f"VENV={tmp_path / 'venv'}"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert "needs Python 3.11 or newer" in done.stderr
    assert "make setup PYTHON=" in done.stderr


def test_no_python_at_all_is_refused_with_the_remedy(tmp_path: Path) -> None:
    done = subprocess.run(
        ["make", "setup", "PYTHON=", f"VENV={tmp_path / 'venv'}"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert "Python 3.11 or newer, and none was found" in done.stderr


def test_continuous_integration_walks_the_path_of_the_readme() -> None:
    script = REPOSITORY / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert re.findall(r"^step make ([\w-]+)", script.read_text(), re.MULTILINE) == [
        "demo",
        "check",
        "test",
        "test-journeys",
        "torture",
        "test-federated",
        "docs",
        "dist",
    ]
    readme = (REPOSITORY / "README.md").read_text()
    assert "make demo" in readme
    assert "make test" in readme


def test_the_forge_runs_what_a_clone_runs_and_claims_no_other_python() -> None:
    job = yaml.safe_load((REPOSITORY / ".github/workflows/ci.yml").read_text())["jobs"]["run"]
    assert [step["run"] for step in job["steps"] if "run" in step] == [".ci/run"]
    assert job["container"].startswith("python:3.11-")


def test_pre_commit_runs_the_tools_of_the_clone() -> None:
    (repository,) = yaml.safe_load((REPOSITORY / ".pre-commit-config.yaml").read_text())["repos"]
    assert repository["repo"] == "local"  # no second list of versions
    tools = {hook["entry"].split()[0] for hook in repository["hooks"] if hook["language"] == "system"}
    assert tools == {".venv/bin/ruff", ".venv/bin/lint-imports", ".venv/bin/python"}


def test_the_citation_is_of_this_version_and_of_the_paper() -> None:
    citation = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text())
    assert citation["version"] == hemoscope.__version__
    assert citation["license"] == PROJECT["license"]
    assert "10.1109/BigDataService49289.2020.00033" in {work["doi"] for work in citation["references"]}


def test_the_documentation_has_every_page_once_in_its_kind() -> None:
    kinds = yaml.safe_load((REPOSITORY / "mkdocs.yml").read_text())["nav"]
    folders = {
        "Tutorials": "tutorial",
        "How-to guides": "how-to",
        "Explanation": "explanation",
        "Reference": "reference",
    }
    listed: list[str] = []
    for kind in kinds:
        ((title, pages),) = kind.items()
        listed += [pages] if isinstance(pages, str) else pages
        if title in folders:
            assert {page.partition("/")[0] for page in pages} <= {folders[title], "architecture.md", "performance.md"}
    docs = REPOSITORY / "docs"
    assert sorted(listed) == sorted(str(page.relative_to(docs)) for page in docs.rglob("*.md"))


def test_no_file_names_a_home_folder_or_a_package_registry() -> None:
    places = re.compile(r"(?<![\w.])/(home|root|Users|work)/\w|--(extra-)?index-url|find-links[= ](?!wheels)")
    tracked = [REPOSITORY / name for name in ("Makefile", "README.md", "pyproject.toml", ".ci/run")]
    tracked += [path for folder in ("src", "docs", "constraints") for path in (REPOSITORY / folder).rglob("*")]
    texts = (path for path in tracked if path.suffix in {"", ".py", ".md", ".toml", ".txt"} and path.is_file())
    assert not [str(path.relative_to(REPOSITORY)) for path in texts if places.search(path.read_text())]


@pytest.mark.parametrize(
    ("folder", "most"), [("src/hemoscope/bundles/default", 25 * MEGABYTE), ("examples", 3 * MEGABYTE)]
)
def test_what_ships_stays_small(folder: str, most: int) -> None:
    path = REPOSITORY / folder
    if not path.is_dir():
        pytest.skip(f"{folder} is not in this clone")
    assert sum(file.stat().st_size for file in path.rglob("*") if file.is_file()) <= most
