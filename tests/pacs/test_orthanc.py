"""The whole way with a real archive: images go to Orthanc, Orthanc sends them on, results come back into the study."""

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from pydicom import dcmread

from hemoscope.testing.dicom_writer import write_series
from hemoscope.testing.phantom import make_phantom

from .hospital import KO, SC, SR, Hospital

pytestmark = [
    pytest.mark.journey,
    pytest.mark.reference_tool("Orthanc", "dcmsend"),
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root, for a network of its own"),
    pytest.mark.timeout(600),
]
NODE = """
[node]
ae_title = "HEMOSCOPE"
port = 11112
quiet_seconds = 2

[results]
hold_incomplete_seconds = 0

[[peer]]
ae_title = "PACS"
addresses = ["127.0.0.1"]

[[destination]]
name = "archive"
ae_title = "PACS"
host = "127.0.0.1"
port = 4242
commitment = true
"""


@pytest.fixture
def hospital(tmp_path: Path, tiny_bundle: Path) -> Iterator[Hospital]:
    if shutil.which("ip") is None:
        pytest.skip("ip is not installed: apt-get install iproute2")
    with ExitStack() as running:
        here = Hospital(tmp_path, running)
        here.orthanc()
        here.listen(NODE)
        here.serve(tiny_bundle)
        yield here


def results(hospital: Hospital, study: str) -> dict[str, str]:
    """The SOP classes in a study of the archive, by QIDO, without the images: class and instance UID."""
    found = hospital.get(f"/dicom-web/studies/{study}/instances?includefield=00080016")
    pairs = {one["00080016"]["Value"][0]: one["00080018"]["Value"][0] for one in found}
    return {sop_class: uid for sop_class, uid in pairs.items() if sop_class in (SR, SC, KO)}


def test_results_come_back_into_the_study_and_nothing_identifying_is_logged(hospital: Hospital, tmp_path: Path) -> None:
    paths = write_series(make_phantom(seed=2, shape=(6, 64, 64)), tmp_path / "images")
    source = dcmread(paths[0])
    hospital.run("dcmsend", "-aet", "STORESCU", "-aec", "PACS", "+sd", "127.0.0.1", 4242, tmp_path / "images")
    study = source.StudyInstanceUID
    found = hospital.until("results in the archive", lambda: {SR, SC} <= set(results(hospital, study)))
    assert found
    hospital.until("delivery of everything", lambda: not hospital.waiting())
    before = results(hospital, study)
    # The same study once more: nothing is doubled, and our own results are not taken for images.
    hospital.run("dcmsend", "-aet", "STORESCU", "-aec", "PACS", "+sd", "127.0.0.1", 4242, tmp_path / "images")
    time.sleep(8)
    assert results(hospital, study) == before
    instances = hospital.get("/instances?expand")
    report = next(one["ID"] for one in instances if one["MainDicomTags"]["SOPInstanceUID"] == before[SR])
    (tmp_path / "report.dcm").write_bytes(hospital.file(report))
    assert dcmread(tmp_path / "report.dcm").PatientID == source.PatientID
    for name in ("hemoscope-listen", "hemoscope-serve"):
        log = hospital.log(name)
        for marker in (str(source.PatientName), str(source.PatientID), study):
            assert marker not in log
