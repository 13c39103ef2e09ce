"""The page that explains results gives the numbers of the card that ships."""

import re
from pathlib import Path

from hemoscope.inference.bundle import load_bundle
from hemoscope.inference.calibration import OperatingPoint, Proportion
from hemoscope.labels import LABELS, Hemorrhage

PAGE = Path(__file__).resolve().parents[2] / "docs" / "explanation" / "what-results-mean.md"


def shown(value: float, digits: int) -> str:
    """As the page writes shares: no zero before the point."""
    return f"{value:.{digits}f}".removeprefix("0")


def share(found: Proportion | None) -> str:
    assert found
    return f"{shown(found.value, 2)} ({shown(found.low, 2)} to {shown(found.high, 2)})"


def cells(point: OperatingPoint) -> list[str]:
    """Threshold, and sensitivity and specificity on patients whom it was not fitted on."""
    found = point.performance
    assert found
    assert found.method == "cross_fitted"
    return [shown(point.threshold, 2), share(found.sensitivity), share(found.specificity)]


def test_the_page_gives_the_operating_points_and_scores_of_the_shipped_card() -> None:
    card = load_bundle(None).card
    (patients,) = [table for table in card.scores if table.name == "CT-ICH, out of fold, by patient"]
    expected = []
    for label in LABELS:
        score = patients.labels[label]
        assert score.auroc
        assert score.auroc.low is not None
        assert score.auroc.high is not None
        low, high = shown(score.auroc.low, 3), shown(score.auroc.high, 3)
        auroc = f"{shown(score.auroc.value, 3)} ({low} to {high})"
        validation = "established" if card.established[label] else "not established"
        point = card.operating_points.study[label]
        expected.append([label.value, validation, str(score.n_positive_patients), *cells(point), auroc])
    expected.insert(1, ["any, urgent", "established", expected[0][2], *cells(card.operating_points.urgent), ""])
    names = "|".join(label.value for label in Hemorrhage)
    rows = re.findall(rf"^\| ((?:{names})(?:, urgent)? \|.*) \|$", PAGE.read_text(), re.MULTILINE)
    assert [[cell.strip() for cell in row.split("|")] for row in rows] == expected
