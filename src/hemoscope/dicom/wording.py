"""Compares descriptions that people typed: in upper case and without accents."""

import unicodedata


def without_accents(text: str) -> str:
    """Return text in upper case without accents.

    Examples:
        >>> without_accents("Schädel, crâne")
        'SCHADEL, CRANE'
    """
    decomposed = unicodedata.normalize("NFKD", text)
    return "".join(one for one in decomposed if not unicodedata.combining(one)).upper()
