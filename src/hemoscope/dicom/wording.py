"""Words: what people typed, compared in upper case and without accents; and counts with their nouns."""

import re
import unicodedata


def without_accents(text: str) -> str:
    """Return text in upper case without accents.

    Examples:
        >>> without_accents("Schädel, crâne")
        'SCHADEL, CRANE'
    """
    decomposed = unicodedata.normalize("NFKD", text)
    return "".join(one for one in decomposed if not unicodedata.combining(one)).upper()


def name_words(name: str) -> str:
    """Return the words of the family and given name of a person name (PS3.5 6.2.1), sorted.

    Case, accents, umlauts as two letters, the order of the two and later components (middle name, titles) do not tell
    people apart.

    Examples:
        >>> name_words("Müller^Anna^^Dr") == name_words("ANNA MUELLER") == name_words("Anna Muller")
        True
    """
    spelled = re.sub("([AOU])E", r"\1", without_accents(name.partition("=")[0] or name))
    return " ".join(sorted(re.findall(r"[^\W_]+", " ".join(spelled.split("^")[:2]))))


def counted(count: int, noun: str, verbs: tuple[str, str] | None = None) -> str:
    """Return a count with its noun, and with the verb that fits if its two forms are given.

    Examples:
        >>> counted(1, "slice"), counted(12, "slice")
        ('1 slice', '12 slices')
        >>> counted(1, "study"), counted(2, "study")
        ('1 study', '2 studies')
        >>> counted(1, "slice", ("is", "are"))
        '1 slice is'
    """
    plural = f"{noun[:-1]}ies" if noun.endswith("dy") else f"{noun}s"
    words = f"{count} {noun if count == 1 else plural}"
    return words if verbs is None else f"{words} {verbs[0] if count == 1 else verbs[1]}"
