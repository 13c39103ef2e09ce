"""Checklists claim nothing that the evaluation does not hold, and the flow diagram has the real counts."""

import re
import tomllib
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from importlib.resources import files
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hemoscope.dicom.slices import Rejected
from hemoscope.errors import DataError
from hemoscope.evaluation.checklist import read_guidelines, write_checklist
from hemoscope.evaluation.checklist_facts import FACTS, Evidence
from hemoscope.evaluation.clinical_inputs import ClinicalInputs, SubgroupColumn
from hemoscope.evaluation.evaluation_context import EvaluationContext
from hemoscope.evaluation.flow import Flow, Step, flow_document, rejected_steps
from hemoscope.evaluation.flow_diagram import WIDTH, flow_boxes
from hemoscope.evaluation.prediction_files import LabelledPredictions
from hemoscope.evaluation.recalibration import recalibrate
from hemoscope.evaluation.report import evaluation_report
from hemoscope.inference.card import ModelCard

FLOW = Flow(
    inputs=140, unit="DICOM slices and refused files", left=(Step(count=20, unit="inputs", reason="refused: x"),)
)


def made(patients: int = 30, slices: int = 4) -> LabelledPredictions:
    random = np.random.default_rng(3)
    rows = patients * slices
    labels = (random.random((rows, 6)) < 0.3).astype(float)
    labels[:8] = np.nan
    labels[8, 3] = np.nan
    return LabelledPredictions(
        image_ids=tuple(f"i{row}" for row in range(rows)),
        probabilities=random.random(labels.shape),
        labels=labels,
        groups=tuple(f"p{row // slices}" for row in range(rows)),
    )


def report_of(data: LabelledPredictions, clinical: ClinicalInputs, source: Any = None) -> dict[str, Any]:
    after = recalibrate(data.probabilities, data.labels, data.groups)
    return evaluation_report(data, after, EvaluationContext(clinical=clinical, source=source), rounds=20)


@pytest.fixture(scope="module")
def bare() -> dict[str, Any]:
    """Of a file of predictions: no model, no subgroups."""
    return report_of(made(), ClinicalInputs())


def status_of(report: dict[str, Any], card: ModelCard | None, guideline: str, number: str) -> str:
    found = next(one for one in read_guidelines(Evidence(report=report, card=card)) if one.name == guideline)
    return next(item.status for item in found.items if item.number == number)


def test_every_published_item_is_there_once(bare: dict[str, Any]) -> None:
    found = {one.name: [item.number for item in one.items] for one in read_guidelines(Evidence(report=bare, card=None))}
    assert found["CLAIM 2024"] == [str(number) for number in range(1, 45)]
    for name, count, rows in (("STARD-AI", 40, 48), ("TRIPOD+AI", 27, 52)):
        assert len(found[name]) == len(set(found[name])) == rows
        assert list(dict.fromkeys(int(re.sub(r"\D", "", number)) for number in found[name])) == list(
            range(1, count + 1)
        )


def test_every_fact_of_the_items_is_known_and_every_known_fact_is_used() -> None:
    guidelines = tomllib.loads(files("hemoscope.evaluation").joinpath("reporting_items.toml").read_text())["guidelines"]
    named = {fact for one in guidelines for item in one["items"] for fact in item.get("facts", ())}
    assert named == set(FACTS)


@pytest.mark.parametrize(
    ("guideline", "number"),
    [("CLAIM 2024", "5"), ("CLAIM 2024", "11"), ("STARD-AI", "6"), ("STARD-AI", "38"), ("TRIPOD+AI", "17")],
)
def test_what_only_authors_know_stays_open(
    bare: dict[str, Any], make_card: Callable[..., ModelCard], guideline: str, number: str
) -> None:
    assert status_of(bare, None, guideline, number) == "open"
    source = {"model": {"name": "m", "version": "1", "sha256": "0"}, "dataset": "d", "split": None}
    assert status_of({**bare, "source": source}, make_card(), guideline, number) == "open"


def test_an_item_of_several_facts_is_filled_in_only_by_all(bare: dict[str, Any]) -> None:
    assert status_of(bare, None, "TRIPOD+AI", "23a") == "partly"
    column = SubgroupColumn(name="sex", key="patient", values={f"p{i}": "FM"[i % 2] for i in range(30)})
    full = report_of(made(), ClinicalInputs(subgroups=(column,)))
    assert status_of(full, None, "TRIPOD+AI", "23a") == "filled in"


def test_a_file_of_predictions_says_nothing_about_its_model(bare: dict[str, Any]) -> None:
    for guideline, number in (("CLAIM 2024", "22"), ("CLAIM 2024", "20"), ("STARD-AI", "15b"), ("TRIPOD+AI", "12g")):
        assert status_of(bare, None, guideline, number) == "open"


def test_a_filled_item_asks_for_nothing_more_and_others_say_what(bare: dict[str, Any]) -> None:
    for guideline in read_guidelines(Evidence(report=bare, card=None)):
        for item in guideline.items:
            assert bool(item.supply) == (item.status != "filled in")
            assert bool(item.facts) == (item.status != "open")


def test_flow_counts_what_left_and_what_was_scored() -> None:
    document = flow_document(FLOW, made(), None)
    assert (document["inputs"], document["images"], document["patients"]) == (140, 120, 30)
    assert document["unlabelled"] == {"count": 8, "unit": "images", "reason": "no known label", "patients": 2}
    assert (document["scored_images"], document["scored_patients"], document["scored_series"]) == (112, 28, None)
    counts = document["labels"]["intraventricular"]
    assert counts["positive"] + counts["negative"] + counts["unknown"] == 112
    assert counts["unknown"] == 1
    assert counts["patients"]["positive"] + counts["patients"]["negative"] == 28


def test_refusals_are_counted_by_code() -> None:
    rejected = [Rejected(source=str(i), code=code, message="") for i, code in enumerate(["a", "b", "b"])]
    assert [(step.count, step.reason) for step in rejected_steps(rejected)] == [(2, "refused: b"), (1, "refused: a")]


def test_boxes_lie_within_the_drawing_and_never_over_one_another() -> None:
    boxes, height = flow_boxes(flow_document(FLOW, made(), made(slices=1)))
    assert [box.lines[0] for box in boxes][:3] == ["140 DICOM slices and refused files", "20 inputs left", "120 images"]
    for one, other in pairwise(boxes):
        assert one.y + one.height < other.y
    assert all(box.x > 0 and box.x + box.width < WIDTH and box.y + box.height < height for box in boxes)


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in {"src", "href"}]


def test_page_and_text_hold_all_items_without_script_or_markup_from_names(tmp_path: Path) -> None:
    flow = replace(FLOW, unit="<b>slices</b>")
    report = report_of(made(), ClinicalInputs(flow=flow))
    write_checklist(report, None, tmp_path / "new")
    text = (tmp_path / "new" / "checklist.html").read_text()
    page = _Page()
    page.feed(text)
    assert "<b>slices" not in text
    assert {"script", "img", "link"}.isdisjoint(page.tags)
    assert page.tags.count("rect") == len(flow_boxes(report["flow"])[0])
    assert all(address.startswith(("#", "https://doi.org/")) for address in page.addresses)
    assert text.count('<span class="status') == 44 + 48 + 52
    lines = (tmp_path / "new" / "checklist.md").read_text().splitlines()
    assert sum(line.startswith("| ") and " | open | " in line for line in lines) == text.count('"status open"')
    assert "- left: 8 images, no known label" in lines


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path: Path, bare: dict[str, Any]) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be written"):
        write_checklist(bare, None, tmp_path / "file")
