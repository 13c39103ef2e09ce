"""The page on the paper states what ``hemoscope reproduce paper`` counts and computes."""

import json
import re
from pathlib import Path

import pytest

from hemoscope.cli import main

PAGE = Path(__file__).parents[2] / "docs" / "explanation" / "the-paper-re-examined.md"
ROWS = {
    "accuracy, mean of six labels": "headline.accuracy",
    "all six labels right": "headline.exact_match",
    "recall at 0.5, mean of six labels": "headline.recall",
    "AUROC, mean of six labels": "headline.auroc",
}


@pytest.mark.slow
@pytest.mark.shared_data
def test_the_page_gives_the_counts_and_the_headline_of_the_command(shared_data_dir: Path, tmp_path: Path) -> None:
    folder = shared_data_dir / "rsna-paper"
    if not folder.is_dir():
        pytest.skip("no rsna-paper folder in the shared data")
    files = [f"--predictions={folder / 'predictions.csv.gz'}", f"--labels={folder / 'labels.csv.gz'}"]
    assert main(["reproduce", "paper", f"--output={tmp_path}", *files]) == 0
    document, page = json.loads((tmp_path / "reproduction.json").read_text()), PAGE.read_text()
    stated = {status: int(count) for status, count in re.findall(r"^\| ([a-z ]+) \| (\d+) \|", page, re.M)}
    assert stated == {status: count for status, count in document["counts"].items() if count}
    numbers = {one["id"]: one for one in document["numbers"]}
    for row, number in ROWS.items():
        found, scale = numbers[number]["recomputed"], 100 if numbers[number]["unit"] == "%" else 1
        value, low, high = (f"{found[name] / scale:.3f}".removeprefix("0") for name in ("value", "low", "high"))
        assert re.search(rf"^\| {row} \|.*\| {re.escape(f'{value} ({low} to {high})')} \|$", page, re.M), row
