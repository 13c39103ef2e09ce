"""Catalogues for tests: one with every text marked and lengthened, and a Polish one, which has four plural forms."""

import json
import math
import re
from pathlib import Path
from typing import Any

from hemoscope.messages.catalogue import english

LONGER = 0.3
SYLLABLE = 7  # letters without a break: added in one word, they would be longer than any word of a language


def marked(text: str) -> str:
    """``⟦text öööö⟧``: longer by 30% of its letters, without its placeholders."""
    letters = math.ceil(LONGER * len(re.sub(r"\{\w+\}", "", text)))
    words = ["ö" * min(SYLLABLE, letters - start) for start in range(0, letters, SYLLABLE)]
    return f"⟦{' '.join([text, *words])}⟧"


def pseudo_catalogue() -> dict[str, Any]:
    """The catalogue that ships, every text marked."""
    texts = {
        key: marked(text) if isinstance(text, str) else {form: marked(one) for form, one in text.items()}
        for key, text in english().texts.items()
    }
    return {"locale": "en", **texts}


POLISH = {
    "locale": "pl",
    "count.slices": {
        "one": "{count} warstwa",
        "few": "{count} warstwy",
        "many": "{count} warstw",
        "other": "{count} warstwy (ułamek)",
    },
}


def write_catalogue(path: Path, content: dict[str, Any]) -> Path:
    """Write a catalogue as a site would."""
    path.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
    return path
