"""``hemoscope evaluate`` as a person runs it."""

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from hemoscope.cli import evaluate, main
from hemoscope.data.cache import open_cache
from hemoscope.errors import DataError
from hemoscope.inference.bundle import load_bundle, write_bundle
from hemoscope.inference.card import ModelCard, SplitRecord, images_sha256
from hemoscope.labels import LABELS, Hemorrhage
from hemoscope.testing.dicom_writer import write_series
from hemoscope.testing.phantom import make_phantom


def parsed(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="hemoscope evaluate")
    evaluate.register(parser)
    return parser.parse_args(words)


def test_it_prints_the_scores_and_where_the_report_lies(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    random = np.random.default_rng(0)
    labels = (random.random((80, 6)) < 0.15).astype(int)
    labels[:, 0] = labels[:, 1:].max(axis=1)
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
            bleeds = (patient + place) % 2
            six = [bleeds, *(bleeds * ((place // 2 + k) % 2) for k in range(5))]
            rows.append(f"{image_id},p{patient}," + ",".join(map(str, six)))
    rows[-1] = ",".join([*rows[-1].split(",")[:2], *[""] * 6])
    (tmp_path / "l.csv").write_text("\n".join([*rows[:1], *rows[2:]]) + "\n")
    (tmp_path / "dicom" / "notes.dcm").write_text("no DICOM")
    words = [f"--images={tmp_path / 'dicom'}", f"--labels={tmp_path / 'l.csv'}", f"--model={tiny_bundle}"]
    arguments = parsed(*words, f"--output={tmp_path / 'out'}", "--rounds=20", "--name=phantoms")
    assert arguments.run(arguments) == 0
    assert "23 images, 4 groups" in capsys.readouterr().out
    by_slice, by_study = json.loads((tmp_path / "out" / "scores.json").read_text())
    assert (by_slice["name"], by_slice["n_images"], by_study["n_images"]) == ("phantoms, by slice", 22, 4)
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert {error["image_id"] for error in report["errors"]} <= {line.split(",")[0] for line in rows[1:-1]}
    assert 0 < len(report["errors"]) <= 6 * 2 * 3
    flow = report["flow"]
    assert (flow["inputs"], flow["images"], flow["scored_images"]) == (25, 23, 22)
    reasons = ["refused: not_dicom", "not in the table of labels: predicted, not scored"]
    assert [(step["count"], step["reason"]) for step in flow["left"]] == [(1, reason) for reason in reasons]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory, make_ct_ich: Callable[..., Path]) -> Path:
    """A dataset of twenty phantom patients, as ``hemoscope prepare`` leaves it."""
    folder = tmp_path_factory.mktemp("prepared")
    bleeding = frozenset({Hemorrhage.INTRAPARENCHYMAL, Hemorrhage.SUBDURAL})
    patients = {f"p{i:02d}": bleeding if i % 2 else frozenset() for i in range(20)}
    make_ct_ich(folder / "release", patients, slices=4)
    assert main(["prepare", "ct-ich", f"--images={folder / 'release'}", f"--output={folder / 'cache'}"]) == 0
    return folder / "cache"


@pytest.fixture
def split_bundle(
    tmp_path: Path, prepared: Path, make_graph: Callable[..., bytes], make_card: Callable[..., ModelCard]
) -> Path:
    """The tiny model, as if trained on that dataset, split by patient."""
    cache = open_cache(prepared)
    split = SplitRecord(
        dataset=cache.dataset.name,
        by="patient",
        seed=5,
        validation=0.5,
        test=0.25,
        images_sha256=images_sha256(cache.manifest["image_id"]),
    )
    return write_bundle(tmp_path / "split", make_card(split=split, training_data=(cache.dataset,)), make_graph()).folder


def test_a_model_is_scored_on_its_test_part_tuned_on_validation_and_scored_again(
    tmp_path: Path, prepared: Path, split_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    few = ["--rounds=20", "--gallery=1"]
    evaluated = ["evaluate", f"--data={prepared}", *few]
    validation, test, tuned = (tmp_path / name for name in ("validation", "test", "tuned"))
    assert main([*evaluated, f"--model={split_bundle}", "--split=validation", f"--output={validation}"]) == 0
    assert "warning: The model's calibration, thresholds and stopping point" in capsys.readouterr().out
    files = [f"--predictions={validation / 'predictions.csv'}", f"--labels={validation / 'labels.csv'}"]
    series = [f"--series-{name}={validation / f'series-{name}.csv'}" for name in ("predictions", "labels")]
    words = ["tune", *files, *series, "--groups=patient_id", f"--model={split_bundle}", f"--output={tuned}"]
    assert main([*words, "--calibration=temperature", "--rule=youden", "--rounds=20"]) == 0
    assert load_bundle(tuned).card.split == load_bundle(split_bundle).card.split
    capsys.readouterr()
    assert main([*evaluated, f"--model={tuned}", "--split=test", f"--output={test}"]) == 0
    printed = capsys.readouterr().out
    assert "20 images, 5 groups" in printed
    assert "trained on" not in printed
    assert "tuned on" not in printed
    report = json.loads((test / "report.json").read_text())
    assert report["source"]["split"] == {"part": "test", "by": "patient", "seed": 5, "recorded_in_card": True}
    assert report["series_level"]["n"] == 5
    assert report["operating_points"]["slice"]["any"]["rule"] == "youden"
    page = (test / "report.html").read_text()
    assert page.count("data:image/jpeg;base64,") == len(report["errors"])
    assert main([*evaluated, f"--model={tuned}", "--split=validation", f"--output={validation}"]) == 0
    assert "thresholds were tuned on these images" in capsys.readouterr().out


def test_its_files_are_scored_again_to_the_same_numbers(
    tmp_path: Path, prepared: Path, tiny_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    words = [f"--data={prepared}", "--split=all", f"--model={tiny_bundle}", "--rounds=20", "--gallery=0"]
    assert main(["evaluate", *words, f"--output={one}"]) == 0
    files = [f"--predictions={one / 'predictions.csv'}", f"--labels={one / 'labels.csv'}", "--rounds=20"]
    assert main(["evaluate", *files, "--groups=patient_id", "--series=series_id", f"--output={two}"]) == 0
    first, second = (json.loads((folder / "report.json").read_text()) for folder in (one, two))
    assert first["labels"] == second["labels"]
    assert first["errors"] is second["errors"] is None  # a gallery of none makes no claim about errors
    assert "worst errors" not in (one / "report.html").read_text()
    assert first["series_level"]["n"] == second["series_level"]["n"] == 20
    assert "scored by the highest probability of its images" in (two / "report.html").read_text()


def test_what_a_journal_asks_for_stands_in_report_page_and_checklist(
    tmp_path: Path, prepared: Path, tiny_bundle: Path
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    words = ["evaluate", f"--data={prepared}", "--split=all", f"--model={tiny_bundle}", "--rounds=20", "--gallery=0"]
    assert main([*words, f"--output={first}"]) == 0
    (tmp_path / "patients.csv").write_text(
        "patient_id,sex\n" + "".join(f"p{i:02d},{'FM'[i // 10]}\n" for i in range(20))
    )
    asked = ["--subgroup=sex", "--subgroup=slice_spacing_mm:2,4", f"--subgroup-table={tmp_path / 'patients.csv'}"]
    asked += [f"--compare={first / 'predictions.csv'}", "--margin=0.05", "--prevalence=0.1", "--checklist"]
    assert main([*words, *asked, f"--output={second}"]) == 0
    report = json.loads((second / "report.json").read_text())
    assert [one["value"] for one in report["subgroups"]["levels"]["series"]["columns"]["sex"]] == ["F", "M"]
    assert report["comparison"]["levels"]["slice"]["labels"]["any"]["auroc"]["difference"]["value"] == 0.0
    assert report["decision_curve"]["levels"]["series_at_prevalence"]["prevalence"] == 0.1
    assert report["flow"]["inputs"] == report["flow"]["images"] == 80
    page = (second / "report.html").read_text()
    for title in (
        "Net benefit, by series, if 10.0% have",
        "Subgroups of sex, by image",
        "Compared with predictions.csv",
    ):
        assert title in page
    assert "STARD-AI" in (second / "checklist.html").read_text()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--predictions=p.csv"], "need labels. Give --labels"),
        (["--data=cache", "--margin=0.1"], "Give --compare"),
        (["--data=cache", "--subgroup-table=t.csv"], "Give --subgroup COLUMN"),
        (["--predictions=p.csv", "--labels=l.csv", "--prevalence=0.1"], "--series or --groups"),
        (["--data=cache", "--labels=l.csv"], "--data includes labels"),
        (["--data=cache", "--groups=patient_id"], "--data includes labels"),
    ],
)
def test_arguments_that_do_not_go_together_are_refused(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", *words, "--output=o"]) == 2
    assert message in capsys.readouterr().err


def test_an_unknown_column_is_an_error_before_anything_is_predicted(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "--data=absent", "--subgroup=age", "--output=o"]) == 1
    assert "age: not found in slice_spacing_mm" in capsys.readouterr().err


def test_more_pictures_than_a_page_holds_are_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parsed("--data=d", "--output=o", "--gallery=51")
    assert "expected 0 to 50" in capsys.readouterr().err


def test_an_image_that_was_not_read_is_an_error_and_not_excluded(tmp_path: Path, tiny_bundle: Path) -> None:
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


def tables(folder: Path) -> list[str]:
    """A submission of six lines an image, and labels of a spreadsheet with its own names of columns."""
    lines = [f"ID_{i}_{label},{(i + k) / 20}" for i in range(10) for k, label in enumerate(LABELS)]
    (folder / "p.csv").write_text("\n".join(["ID,Label", *lines]))
    rows = [f"scans/id_{i}.dcm;{i % 2};{i % 2};{i % 2};{i % 2};{i % 2};{i // 5 * (i % 2)}" for i in range(10)]
    header = ";".join(["file", "hemorrhage", *LABELS[1:]])
    (folder / "l.csv").write_text("\n".join([header, *rows]))
    names = ["--map=image_id=file", "--map=any=hemorrhage"]
    return ["evaluate", f"--predictions={folder / 'p.csv'}", f"--labels={folder / 'l.csv'}", *names]


def test_a_submission_is_scored_against_a_spreadsheet(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dry = [*tables(tmp_path), "--dry-run"]
    assert main(dry) == 0
    shown = capsys.readouterr().out
    for part in (
        "p.csv: predictions in the form six lines an image, columns separated by comma",
        "columns read: image_id = file, any = hemorrhage, epidural",
        "subdural: 3 positive, 7 negative, 0 unknown",
        "matched: 10 images of l.csv and p.csv",
        "only in p.csv: 0",
    ):
        assert part in shown
    assert main([*dry[:-1], "--rounds=5", f"--output={tmp_path / 'o'}"]) == 0
    report = json.loads((tmp_path / "o" / "report.json").read_text())
    assert (report["n_images"], report["labels"]["any"]["n_positive"]) == (10, 5)


def test_a_dry_run_shows_what_does_not_match_and_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = tables(tmp_path)
    with (tmp_path / "l.csv").open("a") as stream:
        stream.write("\nscans/id_77.dcm;0;0;0;0;0;0\n")
    assert main([*words, "--dry-run", f"--output={tmp_path / 'o'}"]) == 1
    assert "only in l.csv: 1: scans/id_77" in capsys.readouterr().out
    assert main([*words, f"--output={tmp_path / 'o'}"]) == 1
    assert "1 images of l.csv are missing from p.csv: scans/id_77" in capsys.readouterr().err
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ([], "--output is needed. Give it, or only look at the tables with --dry-run"),
        (["--map=bleed=x"], "--map bleed=x: expected NAME=COLUMN, with one of image_id, patient_id, any"),
        (["--map=any=x"], "--map gives any twice: hemorrhage and x"),
        (["--map=subdural=sdh", "--output=o"], "--map subdural=sdh: there is no such column"),
    ],
)
def test_wrong_options_of_tables_are_wrong_usage(
    tmp_path: Path, more: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    dry = ["--dry-run"] if "--map=bleed=x" in more or "--map=any=x" in more else []
    assert main([*tables(tmp_path), *more, *dry]) == 2
    assert message in capsys.readouterr().err
