"""What all tests share: reference tools, real data if available, and (below) phantoms and a tiny bundle.

A *reference tool* is an independent program that implements the standard, such as DCMTK, a browser or PostgreSQL.
Tests that need one are skipped if it is missing; if HEMOSCOPE_REQUIRE_REFERENCE_TOOLS is set (as in .ci/run), they fail
instead. Real head CT is read from HEMOSCOPE_DATA, else from ``../shared/data`` beside the repository, and is never
required.
"""

import logging
import os
import shutil
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

# NumPy, PyTorch and the programs that tests start read it once, when they are loaded. Many small tests in parallel go
# slower with more threads, and sums would depend on the number of processors.
os.environ["OMP_NUM_THREADS"] = os.environ.get("OMP_NUM_THREADS", "1")

import hypothesis
import numpy as np
import pytest

from . import tiny_model

if TYPE_CHECKING:
    from hemoscope.inference.bundle import ModelBundle, ModelCard
    from hemoscope.inference.predictor import Predictor

# A law is no less true on a busy machine: pytest's own timeout catches what hangs.
hypothesis.settings.register_profile("unhurried", deadline=None)
hypothesis.settings.load_profile("unhurried")

REPOSITORY = Path(__file__).resolve().parents[1]
DEBIAN_PACKAGE = {  # every other tool is part of DCMTK
    "dciodvfy": "dicom3tools",
    "dcentvfy": "dicom3tools",
    "dcm2niix": "dcm2niix",
    "Orthanc": "orthanc orthanc-dicomweb",
    "java": "libpixelmed-java default-jre-headless",
    "openssl": "openssl",
    "ssh-keygen": "openssh-client",
    "systemd-analyze": "systemd",
    "mmdebstrap": "mmdebstrap",
}


# What a user does from end to end: a browser, real servers, processes that are killed. They run apart (make
# test-journeys), since they take as long as half of all other tests.
JOURNEYS = (
    "tests/journeys/",
    "tests/pacs/test_orthanc.py",
    "tests/pacs/test_pixelmed.py",
    "tests/store/test_served_faults.py",
    "tests/store/test_worker.py",
    "tests/torture/test_rounds.py",
    "tests/training/test_two_processes.py",
    "tests/web/browser/",
    "tests/web/test_identity_journey.py",
    "tests/web/test_server.py",
)
# The files that take longest start first, so that no worker ends long after the others.
LONGEST = (
    "tests/journeys/test_paper_journey.py",
    "tests/web/browser/test_reading.py",
    "tests/training/models/test_export.py",
    "tests/web/browser/test_accessibility.py",
    "tests/store/test_worker.py",
    "tests/test_architecture.py",
    "tests/docs/test_snippets.py",
    "tests/federated/site/test_personal.py",
    "tests/training/test_overfit.py",
    "tests/training/test_export.py",
    "tests/training/test_resume.py",
)


def pytest_itemcollected(item: pytest.Item) -> None:
    """Mark the journeys."""
    if item.path.relative_to(REPOSITORY).as_posix().startswith(JOURNEYS):
        item.add_marker(pytest.mark.journey)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest files first; the tests of a file keep their order."""
    places = {REPOSITORY / file: place for place, file in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path, len(LONGEST)))


def shared_data_folder() -> Path:
    """The folder of real head CT; it may be missing."""
    return Path(os.environ.get("HEMOSCOPE_DATA", REPOSITORY.parent / "shared" / "data"))


def find_tool(tool: str) -> Path:
    """The path of a reference tool; skips the calling test if it is not installed."""
    found = shutil.which(tool)
    if found is None:
        pytest.skip(f"{tool} is not installed: apt-get install {DEBIAN_PACKAGE.get(tool, 'dcmtk')}")
    return Path(found)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip tests marked ``reference_tool("dciodvfy")`` or ``shared_data`` if the tool or the data is missing."""
    for mark in item.iter_markers("reference_tool"):
        for tool in mark.args:
            find_tool(tool)
    if item.get_closest_marker("shared_data") and not shared_data_folder().is_dir():
        pytest.skip("no real head CT here: set HEMOSCOPE_DATA to the folder that holds rsna-dicom and ct-ich")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Turn a skip for a missing reference tool into a failure if HEMOSCOPE_REQUIRE_REFERENCE_TOOLS is set."""
    report = yield
    # Fixtures skip without the marker: Chromium, PostgreSQL.
    missing = item.get_closest_marker("reference_tool") or "is not installed: " in str(report.longrepr)
    if report.skipped and missing and os.environ.get("HEMOSCOPE_REQUIRE_REFERENCE_TOOLS"):
        report.outcome = "failed"
        report.longrepr = f"HEMOSCOPE_REQUIRE_REFERENCE_TOOLS is set, but this test was skipped: {report.longrepr}"
    return report


@pytest.fixture(autouse=True)
def process_wide_state() -> Iterator[None]:
    """Give each test the umask and the log levels of the first: commands that run in this process change them."""
    mask, loggers = os.umask(0o022), [logging.getLogger(name) for name in ("", "hemoscope")]
    levels = [logger.level for logger in loggers]
    os.umask(mask)
    yield
    os.umask(mask)
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)


@pytest.fixture
def reference_tool() -> Callable[[str], Path]:
    """``reference_tool("dciodvfy")``: its path, or a skip that names the command to install it."""
    return find_tool


@pytest.fixture(scope="session")
def shared_data_dir() -> Path:
    """The folder of real head CT (``ct-ich``, ``rsna-dicom``, ...); mark the test ``shared_data`` too."""
    folder = shared_data_folder()
    if not folder.is_dir():
        pytest.skip("no real head CT here: set HEMOSCOPE_DATA to the folder that holds rsna-dicom and ct-ich")
    return folder


@pytest.fixture(scope="session")
def make_graph() -> Callable[..., bytes]:
    """``make_graph()``: the tiny model in ONNX, with the given weights and names."""
    return tiny_model.tiny_graph


@pytest.fixture(scope="session")
def make_card() -> Callable[..., "ModelCard"]:
    """``make_card(name=..., ...)``: a valid card for the tiny model, with the fields given replaced."""
    return tiny_model.tiny_card


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a bundle with the tiny model; do not write into it."""
    return tiny_model.write_tiny_bundle(tmp_path_factory.mktemp("bundles") / "tiny").folder


@pytest.fixture(scope="session")
def loaded_bundle(tiny_bundle: Path) -> "ModelBundle":
    """The tiny bundle, loaded and verified."""
    from hemoscope.inference.bundle import load_bundle

    return load_bundle(tiny_bundle)


@pytest.fixture(scope="session")
def predictor(loaded_bundle: "ModelBundle") -> "Predictor":
    """A predictor that runs the tiny model on one thread."""
    from hemoscope.inference.predictor import Predictor

    return Predictor(loaded_bundle, threads=1)


def ct_ich_grey(hounsfield: np.ndarray, *, level: float, width: float) -> np.ndarray:
    """HU as the 8-bit grey values of a window, as CT-ICH's release was made."""
    return np.rint((np.clip(hounsfield, level - width / 2, level + width / 2) - (level - width / 2)) * 255 / width)


@pytest.fixture(scope="session")
def make_ct_ich() -> Callable[..., Path]:
    """``make_ct_ich(folder, patients)``: a folder shaped as CT-ICH's release, of phantoms, lossless as PNG.

    ``patients`` maps a patient to the labels it bleeds with; every patient has ``slices`` slices, a mask for each slice
    that shows a bleed, and no bone image for ``without_bone``.
    """

    def build(
        folder: Path,
        patients: dict[str, frozenset[Any]],
        *,
        slices: int = 3,
        size: int = 64,
        without_bone: frozenset[str] = frozenset(),
    ) -> Path:
        import csv

        from PIL import Image

        from hemoscope.labels import LABELS
        from hemoscope.testing.phantom import make_phantom

        def save(grey: np.ndarray, name: str) -> str:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(grey.astype(np.uint8)).save(folder / name)
            return name

        rows = []
        for seed, (patient, bleeds) in enumerate(patients.items()):
            phantom = make_phantom(seed=seed, shape=(slices, size, size), bleeds=bleeds)
            for index, labels in enumerate(phantom.slice_labels):
                hounsfield, mask = phantom.hounsfield[index], phantom.masks["any"][index]
                image_id, place = f"{patient}_{index + 1:03d}", f"patients/{patient}"
                brain = save(ct_ich_grey(hounsfield, level=40, width=120), f"{place}/brain/{index + 1}.png")
                bone = save(ct_ich_grey(hounsfield, level=700, width=3200), f"{place}/bone/{index + 1}.png")
                rows.append(
                    {
                        "image_id": image_id,
                        "patient_id": patient,
                        "slice": index + 1,
                        "brain_file": brain,
                        "bone_file": "" if image_id in without_bone else bone,
                        "mask_file": save(mask * 255, f"{place}/brain/{index + 1}_mask.png") if labels.any() else "",
                        **{label.value: int(shown) for label, shown in zip(LABELS, labels, strict=True)},
                    }
                )
        with (folder / "labels.csv").open("w", newline="") as stream:
            writer = csv.DictWriter(stream, fieldnames=list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
        return folder

    return build
