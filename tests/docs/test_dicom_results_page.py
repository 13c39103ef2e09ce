"""The page of results in DICOM states the codes that the program writes."""

from pathlib import Path

from hemoscope.labels import LABEL_CODES, CodedTerm

PAGE = Path(__file__).resolve().parents[2] / "docs" / "reference" / "dicom-results.md"


def written(term: CodedTerm | None) -> str:
    return "" if term is None else f"{term.scheme} {term.value}, {term.meaning}"


def test_the_table_of_codes_is_that_of_the_program() -> None:
    rows = [tuple(cell.strip() for cell in line.strip("|").split("|")) for line in PAGE.read_text().splitlines()]
    for label, code in LABEL_CODES.items():
        assert (label.value, written(code.finding), written(code.site), code.source) in rows
