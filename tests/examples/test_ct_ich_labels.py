"""The label table of CT-ICH, from the files that PhysioNet ships."""

import csv
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "examples" / "ct_ich_labels.py"
HEAD = "PatientNumber,SliceNumber,Intraventricular,Intraparenchymal,Subarachnoid,Epidural,Subdural,No_Hemorrhage\n"


def write_labels(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, SCRIPT, folder], capture_output=True, text=True, check=False)


def test_the_labels_of_a_release_are_written_and_slices_without_an_image_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "hemorrhage_diagnosis_raw_ct.csv").write_text(
        "\ufeff" + HEAD + "49,1,0,0,0,0,0,1\n49,2,0,0,0,1,0,0\n49,3,0,0,0,0,0,1\n", encoding="utf-8"
    )
    for name in ("brain/1.jpg", "brain/2.jpg", "brain/2_HGE_Seg.jpg", "bone/1.jpg"):
        (tmp_path / "Patients_CT/049" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "Patients_CT/049" / name).touch()
    done = write_labels(tmp_path)
    assert (done.returncode, done.stdout) == (0, "2 slices in labels.csv\n")
    with (tmp_path / "labels.csv").open(newline="") as stream:
        first, second = csv.DictReader(stream)
    assert (first["image_id"], first["any"], first["mask_file"]) == ("ctich_049_001", "0", "")
    assert (second["patient_id"], second["any"], second["epidural"], second["subdural"]) == ("ctich_049", "1", "1", "0")
    assert (second["brain_file"], second["bone_file"]) == ("Patients_CT/049/brain/2.jpg", "")
    assert second["mask_file"] == "Patients_CT/049/brain/2_HGE_Seg.jpg"


def test_a_folder_that_is_no_release_is_refused(tmp_path: Path) -> None:
    done = write_labels(tmp_path)
    assert done.returncode == 2
    assert "no hemorrhage_diagnosis.csv here" in done.stderr


@pytest.mark.shared_data
def test_the_table_is_the_one_that_the_default_model_was_trained_with(shared_data_dir: Path, tmp_path: Path) -> None:
    source = shared_data_dir / "ct-ich"
    if not (source / "hemorrhage_diagnosis.csv").is_file():
        pytest.skip("no hemorrhage_diagnosis.csv of CT-ICH in the folder of HEMOSCOPE_DATA")
    shutil.copy(source / "hemorrhage_diagnosis.csv", tmp_path)
    shutil.copytree(source / "patients", tmp_path / "patients", copy_function=lambda _, name: Path(name).touch())
    assert write_labels(tmp_path).returncode == 0
    with (tmp_path / "labels.csv").open(newline="") as ours, (source / "labels.csv").open(newline="") as theirs:
        for row, expected in zip(csv.DictReader(ours), csv.DictReader(theirs), strict=True):
            assert row == {name: expected[name] for name in row}
