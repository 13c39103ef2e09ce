"""What all tests share: foreign judges, real data where it is at hand, and (below) phantoms and a tiny bundle.

A *judge* is a foreign program that knows the standard better than we do. Without it a test is skipped by name; with
HEMOSCOPE_REQUIRE_JUDGES set (as .ci/run does) such a skip is a failure. Real head CT is read from HEMOSCOPE_DATA, else
from ``../shared/data`` beside the repository, and is never required.
"""

import os
import shutil
from collections.abc import Callable, Generator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
DEBIAN_PACKAGE = {"dciodvfy": "dicom3tools", "dcentvfy": "dicom3tools"}  # every other judge is DCMTK's


def shared_data_folder() -> Path:
    """Where real head CT lies, if it is there at all."""
    return Path(os.environ.get("HEMOSCOPE_DATA", REPOSITORY.parent / "shared" / "data"))


def find_judge(tool: str) -> Path:
    """The path of a foreign program; skips the calling test by name where it is not installed."""
    found = shutil.which(tool)
    if found is None:
        pytest.skip(f"{tool} is not installed: apt-get install {DEBIAN_PACKAGE.get(tool, 'dcmtk')}")
    return Path(found)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what cannot run here: ``@pytest.mark.judge("dciodvfy")`` and ``@pytest.mark.shared_data``."""
    for mark in item.iter_markers("judge"):
        for tool in mark.args:
            find_judge(tool)
    if item.get_closest_marker("shared_data") and not shared_data_folder().is_dir():
        pytest.skip("no real head CT here: set HEMOSCOPE_DATA to the folder that holds rsna-dicom and ct-ich")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Turn a skipped judge into a failure where HEMOSCOPE_REQUIRE_JUDGES asks for all of them."""
    report = yield
    if report.skipped and item.get_closest_marker("judge") and os.environ.get("HEMOSCOPE_REQUIRE_JUDGES"):
        report.outcome = "failed"
        report.longrepr = f"HEMOSCOPE_REQUIRE_JUDGES is set, but this test was skipped: {report.longrepr}"
    return report


@pytest.fixture
def judge() -> Callable[[str], Path]:
    """``judge("dciodvfy")``: the path of a foreign program, or a skip by name with the line that installs it."""
    return find_judge


@pytest.fixture(scope="session")
def shared_data_dir() -> Path:
    """The folder of real head CT (``ct-ich``, ``rsna-dicom``, ...); mark the test ``shared_data`` too."""
    folder = shared_data_folder()
    if not folder.is_dir():
        pytest.skip("no real head CT here: set HEMOSCOPE_DATA to the folder that holds rsna-dicom and ct-ich")
    return folder
