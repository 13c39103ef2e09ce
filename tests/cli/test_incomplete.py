"""A study that was not read in full says so, and why, in every output; it is never plain routine."""

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hemoscope import cli
from hemoscope.cli.exit_codes import ExitCode
from hemoscope.inference.bundle import write_bundle
from hemoscope.inference.calibration import ConformalSets, OperatingPoint, UnsureRule
from hemoscope.inference.card import OperatingPointTable
from hemoscope.labels import PerLabel
from hemoscope.testing.dicom_writer import write_series
from hemoscope.testing.phantom import make_phantom

Run = Callable[..., tuple[int, str]]
HEAD = make_phantom(seed=2, shape=(28, 48, 48))


@pytest.fixture(scope="module")
def bundles(
    tmp_path_factory: pytest.TempPathFactory, make_card: Callable[..., Any], make_graph: Callable[..., bytes]
) -> dict[str, Path]:
    """One model that finds nothing, one that finds everything, and one that finds nothing and excludes nothing."""
    folder, found = tmp_path_factory.mktemp("bundles"), {}
    never = UnsureRule(alpha=0.1, sets=(ConformalSets(alpha=0.1, low=1e-9, high=0.9999999),))
    for name, threshold, unsure in (
        ("routine", 0.9999999, None),
        ("immediate", 1e-9, None),
        ("unsure", 0.9999999, never),
    ):
        point = PerLabel.build(lambda _, at=threshold: OperatingPoint(threshold=at, rule="fixed"))
        points = OperatingPointTable(slice=point, study=point, urgent=point["any"])
        found[name] = write_bundle(
            folder / name, make_card(operating_points=points, unsure=unsure), make_graph()
        ).folder
    return found


@pytest.fixture
def run(bundles: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> Run:
    def call(*words: object, model: str = "routine") -> tuple[int, str]:
        code = cli.main(["predict", *map(str, words), "--model", str(bundles[model]), "--threads", "1"])
        return code, capsys.readouterr().out

    return call


def damage(path: Path) -> None:
    """Cut the pixels off, so that the file is refused when the input is opened."""
    path.write_bytes(path.read_bytes()[:-100])


def test_a_whole_head_is_complete(run: Run, tmp_path: Path) -> None:
    write_series(HEAD, tmp_path / "head")
    code, out = run(tmp_path / "head", "--format", "json")
    (study,) = json.loads(out)["studies"]
    assert (code, study["state"], study["unread"]) == (0, "complete", {"count": 0, "reasons": []})
    assert "incomplete" not in run(tmp_path / "head")[1].lower()


def test_one_slice_of_28_is_counted_but_leaves_the_study_complete(run: Run, tmp_path: Path) -> None:
    damage(write_series(HEAD, tmp_path / "head")[12])
    code, out = run(tmp_path / "head", "--format", "json", "--allow-refused", "truncated_pixel_data")
    (study,) = json.loads(out)["studies"]
    assert (code, study["state"], study["unread"]["count"]) == (0, "complete", 1)


def test_more_than_5_percent_of_the_slices_make_it_incomplete(run: Run, tmp_path: Path) -> None:
    paths = write_series(HEAD, tmp_path / "head")
    for index in (8, 12, 16):
        damage(paths[index])
    words = (tmp_path / "head", "--allow-refused", "truncated_pixel_data")
    code, out = run(*words, "--format", "json")
    (study,) = json.loads(out)["studies"]
    assert code == ExitCode.INCOMPLETE == 5
    assert (study["state"], study["unread"]["count"], study["triage"]) == ("incomplete", 3, "routine")
    assert [(one["code"], one["count"]) for one in study["unread"]["reasons"]] == [("truncated_pixel_data", 3)]
    table = " ".join(run(*words)[1].split())
    assert table.startswith("INCOMPLETE")
    assert "ROUTINE" not in table
    assert "25 slices, incomplete" in table
    assert "3 slices were not read: pixel data should have" in table
    assert run(tmp_path / "head")[0] == ExitCode.SOME_REFUSED


@pytest.mark.parametrize("part", [slice(0, 14), slice(10, 11)])
def test_less_than_a_head_is_incomplete_in_every_output(run: Run, tmp_path: Path, part: slice) -> None:
    for path in [
        *write_series(HEAD, tmp_path / "head")[: part.start],
        *sorted((tmp_path / "head").iterdir())[part.stop :],
    ]:
        path.unlink()
    code, out = run(tmp_path / "head", "--format", "json", "--output", tmp_path / "out")
    (study,) = json.loads(out)["studies"]
    (reason,) = study["unread"]["reasons"]
    assert (code, study["state"], study["unread"]["count"], reason["count"]) == (5, "incomplete", 0, 0)
    assert reason["code"] == ("single_slice" if part.stop - part.start == 1 else "few_slices")
    (page,) = (tmp_path / "out" / "reports").rglob("report.html")
    assert '<p class="headline incomplete">Incomplete: not the whole head was read' in page.read_text()
    assert ("1 slice, incomplete" if part.start == 10 else "14 slices, incomplete") in page.read_text()
    (row,) = csv.DictReader(io.StringIO((tmp_path / "out" / "studies.csv").read_text()))
    assert row["state"] == "incomplete"


def test_what_is_suspected_stays_urgent_though_the_study_is_incomplete(run: Run, tmp_path: Path) -> None:
    write_series(HEAD.hounsfield[:10], tmp_path / "head")
    code, out = run(tmp_path / "head", model="immediate")
    assert code == 0
    assert out.strip().startswith("IMMEDIATE")
    assert "10 slices, incomplete" in out


def test_an_unsure_study_with_nothing_present_is_reported_if_it_is_incomplete(run: Run, tmp_path: Path) -> None:
    write_series(HEAD, tmp_path / "whole")
    assert run(tmp_path / "whole", model="unsure")[0] == 0
    write_series(HEAD.hounsfield[:10], tmp_path / "part")
    code, out = run(tmp_path / "part", "--format", "json", model="unsure")
    (study,) = json.loads(out)["studies"]
    assert (code, study["triage"], study["state"]) == (ExitCode.INCOMPLETE, "unsure", "incomplete")


def test_slices_that_lack_a_position_are_unread(run: Run, tmp_path: Path) -> None:
    import pydicom

    paths = write_series(HEAD, tmp_path / "head")
    for path in paths[3:6]:
        dataset = pydicom.dcmread(path)
        del dataset.ImagePositionPatient
        dataset.save_as(path)
    code, out = run(tmp_path / "head", "--format", "json")
    (study,) = json.loads(out)["studies"]
    assert (code, study["state"], len(study["slices"])) == (5, "incomplete", 25)
    (reason,) = study["unread"]["reasons"]
    assert (reason["code"], reason["count"], "IM0004.dcm" in reason["message"]) == ("no_position", 3, True)
    assert np.all(np.diff([one["position_mm"] for one in study["slices"]]) > 0)
