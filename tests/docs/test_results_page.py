"""The page that explains results gives the numbers of the card that ships."""

import re
from pathlib import Path

from hemoscope.inference.bundle import load_bundle
from hemoscope.labels import LABELS, Hemorrhage

PAGE = Path(__file__).resolve().parents[2] / "docs" / "explanation" / "what-results-mean.md"


def shown(value: float, digits: int) -> str:
    """As the page writes shares: no zero before the point."""
    return f"{value:.{digits}f}".removeprefix("0")


def test_the_page_gives_the_operating_points_and_scores_of_the_shipped_card() -> None:
    card = load_bundle(None).card
    (patients,) = [table for table in card.scores if table.name == "CT-ICH, out of fold, by patient"]
    expected = []
    for label in LABELS:
        point, score = card.operating_points.study[label], patients.labels[label]
        assert score.auroc
        low, high = shown(score.auroc.low, 3), shown(score.auroc.high, 3)
        auroc = f"{shown(score.auroc.value, 3)} ({low} to {high})"
        validation = "established" if card.established[label] else "not established"
        rates = [shown(rate, 2) for rate in (point.threshold, point.sensitivity or 0, point.specificity or 0)]
        expected.append([label.value, validation, str(score.n_positive_patients), *rates, auroc])
    urgent = card.operating_points.urgent
    rates = [shown(rate, 2) for rate in (urgent.threshold, urgent.sensitivity or 0, urgent.specificity or 0)]
    expected.insert(1, ["any, urgent", "established", expected[0][2], *rates, ""])
    names = "|".join(label.value for label in Hemorrhage)
    rows = re.findall(rf"^\| ((?:{names})(?:, urgent)? \|.*) \|$", PAGE.read_text(), re.MULTILINE)
    assert [[cell.strip() for cell in row.split("|")] for row in rows] == expected
