"""``hemoscope evaluate`` as a person runs it."""

import argparse
import json
from pathlib import Path

import numpy as np
import pytest

from hemoscope.cli import evaluate
from hemoscope.data.dicom_writer import write_series
from hemoscope.data.phantom import make_phantom
from hemoscope.errors import DataError
from hemoscope.labels import LABELS


def parsed(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="hemoscope evaluate")
    evaluate.register(parser)
    return parser.parse_args(words)


def test_it_prints_the_scores_and_where_the_report_lies(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    random = np.random.default_rng(0)
    labels = (random.random((80, 6)) < 0.3).astype(int)
    scores = np.clip(0.5 * labels + random.random(labels.shape) / 2, 0.001, 0.999)
    for name, table in (("p.csv", scores), ("l.csv", labels)):
        rows = [f"ID_{i},p{i // 4}," + ",".join(map(str, row)) for i, row in enumerate(table)]
        (tmp_path / name).write_text("\n".join([",".join(["image_id", "patient_id", *LABELS]), *rows]))
    words = [f"--predictions={tmp_path / 'p.csv'}", f"--labels={tmp_path / 'l.csv'}", "--groups=patient_id"]
    arguments = parsed(*words, f"--output={tmp_path / 'out'}", "--rounds=20")
    assert arguments.run(arguments) == 0
    printed = capsys.readouterr().out
    assert "80 images, 20 groups" in printed
    assert "Any hemorrhage" in printed
    assert (tmp_path / "out" / "report.json").is_file()


def test_a_model_is_scored_on_labelled_dicom_as_it_serves(
    tmp_path: Path, tiny_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [",".join(["image_id", "patient_id", *LABELS])]
    for patient in range(4):
        files = write_series(
            make_phantom(seed=patient, shape=(6, 64, 64)), tmp_path / "dicom" / str(patient), seed=patient
        )
        for place, file in enumerate(files):
            image_id = f"ID_{patient}_{place}"
            file.rename(tmp_path / "dicom" / f"{image_id}.dcm")
            rows.append(f"{image_id},p{patient}," + ",".join(str((patient + place + k) % 2) for k in range(6)))
    rows[-1] = ",".join([*rows[-1].split(",")[:2], *[""] * 6])
    (tmp_path / "l.csv").write_text("\n".join(rows) + "\n")
    words = [f"--images={tmp_path / 'dicom'}", f"--labels={tmp_path / 'l.csv'}", f"--model={tiny_bundle}"]
    arguments = parsed(*words, f"--output={tmp_path / 'out'}", "--rounds=20", "--name=phantoms")
    assert arguments.run(arguments) == 0
    assert "24 images, 4 groups" in capsys.readouterr().out
    by_slice, by_study = json.loads((tmp_path / "out" / "scores.json").read_text())
    assert (by_slice["name"], by_slice["n_images"], by_study["n_images"]) == ("phantoms, by slice", 23, 4)


def test_an_image_that_was_not_read_is_an_error_and_not_left_out(tmp_path: Path, tiny_bundle: Path) -> None:
    write_series(make_phantom(seed=1, shape=(2, 64, 64)), tmp_path / "dicom", seed=1)
    rows = [",".join(["image_id", "patient_id", *LABELS]), "ID_absent,p," + ",".join("0" * 6)]
    (tmp_path / "l.csv").write_text("\n".join(rows) + "\n")
    words = [f"--images={tmp_path / 'dicom'}", f"--labels={tmp_path / 'l.csv'}", f"--model={tiny_bundle}"]
    arguments = parsed(*words, f"--output={tmp_path / 'out'}")
    with pytest.raises(DataError, match="1 images of the table were not read, first ID_absent"):
        arguments.run(arguments)


def test_no_rounds_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parsed("--predictions=p", "--labels=l", "--output=o", "--rounds=0")
    assert "number above 0" in capsys.readouterr().err
