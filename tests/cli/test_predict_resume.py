"""``hemoscope predict --resume``: a run that was stopped goes on, and no study is read twice."""

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hemoscope import cli
from hemoscope.cli.exit_codes import ExitCode
from hemoscope.inference.bundle import load_bundle
from hemoscope.inference.precision import Precision
from hemoscope.inference.predictor import Predictor
from hemoscope.testing.ct_image import Acquisition
from hemoscope.testing.dicom_writer import write_series
from hemoscope.testing.phantom import make_phantom

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory, tiny_bundle: Path) -> Path:
    """Three studies in ``in``, and in ``out`` the results of a run that was stopped in the third."""
    folder = tmp_path_factory.mktemp("stopped")
    for seed in range(3):
        head = make_phantom(seed=seed, shape=(2, 32, 32))
        write_series(head, folder / "in" / str(seed), seed=seed, acquisition=Acquisition(patient_id=f"P{seed}"))
    read, begun = Predictor.read_study, []

    def stop(self: Predictor, *given: Any, **options: Any) -> Any:
        begun.append(1)
        if len(begun) == 3:
            raise KeyboardInterrupt
        return read(self, *given, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Predictor, "read_study", stop)
        words = ["predict", folder / "in", "--output", folder / "out", "--model", tiny_bundle, "--threads", "1"]
        assert cli.main([*map(str, words)]) == ExitCode.INTERRUPTED
    return folder


def rows(output: Path, name: str) -> list[dict[str, str]]:
    with (output / name).open(newline="") as stream:
        return list(csv.DictReader(stream))


@pytest.fixture
def interrupted(stopped: Path, tmp_path: Path) -> Path:
    """A copy of the results that a test may go on with."""
    return Path(shutil.copytree(stopped / "out", tmp_path / "out"))


@pytest.fixture
def studies(stopped: Path) -> Path:
    """The inputs; do not change them."""
    return stopped / "in"


def test_the_tables_are_complete_for_what_was_done(interrupted: Path) -> None:
    assert len(rows(interrupted, "studies.csv")) == 2
    assert len(rows(interrupted, "findings.csv")) == 2 * 2
    assert not (interrupted / "findings.json").exists()


def test_a_resumed_run_reads_the_rest_alone_and_ends_as_one_that_was_not_interrupted(
    run: Run, studies: Path, interrupted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, whole, _ = run(studies, "--output", tmp_path / "whole", "--format", "json")
    read: list[str] = []
    original = Predictor.read_study

    def count(self: Predictor, archive: Any, study: Any, **options: Any) -> Any:
        read.append(study.study_instance_uid)
        return original(self, archive, study, **options)

    monkeypatch.setattr(Predictor, "read_study", count)
    again = run(studies, "--output", interrupted, "--resume", "--format", "json")
    assert again[:2] == (code, whole)
    assert "2 of 3 studies are finished with the same inputs and model, and are not read again" in again[2]
    assert len(read) == 1
    for name in ("findings.csv", "studies.csv", "findings.json"):
        assert (interrupted / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert run(studies, "--output", interrupted, "--resume", "--format", "json")[1] == whole
    assert len(read) == 1


def test_a_study_whose_files_changed_or_with_other_options_is_read_again(
    run: Run, studies: Path, interrupted: Path, tmp_path: Path
) -> None:
    assert "finished" not in run(studies, "--output", interrupted, "--resume", "--identify")[2]
    changed = Path(shutil.copytree(studies, tmp_path / studies.name))
    for file in changed.rglob("*.dcm"):
        file.write_bytes(file.read_bytes())
    assert "finished" not in run(changed, "--output", interrupted, "--resume")[2]


def test_a_file_replaced_before_its_patient_is_named_refuses_the_study_and_no_other(
    run: Run, studies: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = Predictor.read_study
    replaced: list[Path] = []

    def then_replace(self: Predictor, archive: Any, study: Any, **options: Any) -> Any:
        outcome = original(self, archive, study, **options)
        if not replaced:
            source = outcome.reading.findings.slices[0].source
            replaced.append(archive.sources[source].path)
            replaced[0].write_bytes(replaced[0].read_bytes() + bytes(2))
        return outcome

    monkeypatch.setattr(Predictor, "read_study", then_replace)
    _, out, _ = run(studies, "--identify", "--format", "json")
    document = json.loads(out)
    assert len(document["studies"]) == 2
    assert [one["code"] for one in document["rejected"]] == ["changed_file"]


@pytest.mark.parametrize("damage", [lambda text: "{}", lambda text: text.replace('"index": 0', '"index": 8', 1)])
def test_a_damaged_record_is_not_used(run: Run, studies: Path, interrupted: Path, damage: Callable[[str], str]) -> None:
    for path in (interrupted / "resume").iterdir():
        path.write_text(damage(path.read_text()))
    code, _, err = run(studies, "--output", interrupted, "--resume")
    assert (code, err) == (0, "")
    assert len(rows(interrupted, "findings.csv")) == 3 * 2


def test_a_refused_slice_is_reported_of_a_finished_study_too(run: Run, studies: Path, tmp_path: Path) -> None:
    study = Path(shutil.copytree(studies / "0", tmp_path / "study"))
    path = sorted(study.iterdir())[0]
    path.write_bytes(path.read_bytes()[:-100])
    first = run(study, "--output", tmp_path / "out", "--format", "json")
    assert run(study, "--output", tmp_path / "out", "--format", "json", "--resume")[:2] == first[:2]


def test_progress_counts_studies(studies: Path, tmp_path: Path, tiny_bundle: Path) -> None:
    import argparse

    from hemoscope.cli.predict_progress import RunProgress
    from hemoscope.dicom.archive import open_archive

    given = argparse.Namespace(
        output=tmp_path / "o",
        dicom=None,
        series=None,
        heatmaps=False,
        pdf=False,
        identify=False,
        resume=False,
        limit=[],
        device="cpu",
    )
    given.output.mkdir()
    shown: list[tuple[str, int, int]] = []
    archive = open_archive(studies)
    bundle = load_bundle(tiny_bundle)
    progress = RunProgress.begin(given, bundle, Precision.FLOAT32, archive, (), lambda *step: shown.append(step))
    progress.show("scoring", 1, 5)
    progress.done()
    assert shown == [("studies", 0, 3), ("studies", 1, 3)]
