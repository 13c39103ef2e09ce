"""Numbers in the prose of the pages are those of the card and of the committed records."""

import json
import math
import re
from pathlib import Path

from scipy.special import expit

from hemoscope.inference.bundle import load_bundle
from hemoscope.labels import Hemorrhage

REPOSITORY = Path(__file__).resolve().parents[2]
DOCS = REPOSITORY / "docs"
RESULTS = REPOSITORY / "experiments" / "results"


def shown(value: float, digits: int = 3) -> str:
    """As the pages write shares: no zero before the point."""
    return f"{value:.{digits}f}".replace("0.", ".", 1)


def signed(found: dict[str, float]) -> str:
    """A difference with its interval, as the pages write it."""
    value, low, high = (f"{found[name]:+.3f}".replace("0.", ".", 1) for name in ("value", "low", "high"))
    return f"{value} ({low} to {high})".replace("(+.", "(+.")


def one_line(page: str) -> str:
    return " ".join((DOCS / page).read_text().split())


def test_the_predictive_value_of_the_tutorial_is_that_of_the_shipped_card() -> None:
    """Bayes' rule, and Mercaldo's interval on the logit scale (Statistics in Medicine 2007;26:2170)."""
    card = load_bundle(None).card
    found = card.operating_points.study[Hemorrhage.ANY].performance
    assert found
    assert found.sensitivity
    assert found.specificity
    positive, negative = found.sensitivity.patients, found.specificity.patients
    sensitivity, specificity = found.sensitivity.value, found.specificity.value
    odds = math.log(sensitivity * 0.1 / ((1 - specificity) * 0.9))
    variance = (1 - sensitivity) / (sensitivity * positive) + specificity / ((1 - specificity) * negative)
    half = 1.959964 * math.sqrt(variance)
    value, low, high = (round(100 * float(expit(x))) for x in (odds, odds - half, odds + half))
    expected = f"of 100 flagged about {value} were right (95% interval {low} to {high}), at a prevalence of 10%"
    assert expected in one_line("tutorial/reading-room.md")


def test_the_external_scores_of_the_page_are_those_of_the_record() -> None:
    slices, studies = (table["labels"]["any"]["auroc"]["value"] for table in _external("default"))
    before = [table["labels"]["any"]["auroc"]["value"] for table in _external("trial-288")]
    page = one_line("explanation/default-model.md")
    assert f"AUROC of {shown(slices)} by slice and {shown(studies)} by study" in page
    assert f"| nothing | {shown(slices, 4)} | {shown(studies, 4)} | |" in page
    assert f"Version 1 reached {shown(before[0])} and {shown(before[1])}" in page


def _external(run: str) -> list[dict[str, dict[str, dict[str, dict[str, float]]]]]:
    tables: list[dict[str, dict[str, dict[str, dict[str, float]]]]] = json.loads(
        (RESULTS / run / "rsna-dicom.json").read_text()
    )
    return tables


def test_the_page_says_what_the_federation_showed_and_what_it_did_not() -> None:
    report = json.loads((RESULTS / "federated" / "report.json").read_text())
    apart = {level: report["levels"][level]["any"]["differences"]["federated - pooled"] for level in ("slice", "study")}
    page = one_line("explanation/federated-learning.md")
    assert f"| federated minus pooled | {signed(apart['slice'])} | {signed(apart['study'])} |" in page
    lower = [f"{found['low']:+.3f}".replace("0.", ".", 1) for found in apart.values()]
    assert re.search(rf"It is {re.escape(lower[0])} by slice and {re.escape(lower[1])} by study", page)
    assert all(found["low"] < -report["margin"] < found["value"] for found in apart.values())
