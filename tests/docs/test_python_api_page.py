"""The reference of the Python API has every public name, and no other."""

import re
from pathlib import Path

import hemoscope

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "reference" / "python-api.md").read_text()
CONSTANTS = {"DISCLAIMER", "LABELS", "SUBTYPES"}


def test_the_page_has_every_public_name_and_no_other() -> None:
    assert set(re.findall(r"^::: hemoscope\.(\w+)$", PAGE, re.MULTILINE)) == {*hemoscope.__all__} - {
        *CONSTANTS,
        "__version__",
    }
    assert not [name for name in CONSTANTS if f"`{name}`" not in PAGE]
