"""Matches image ids of tables with file names, and ids of one table with ids of another: strictly, never by a guess.

An id is a file's name with or without a DICOM ending, in upper or lower case, alone or after its folders. Only known
endings are removed: the last part of a UID (``1.2.7.1``) is never taken for one.
"""

import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from hemoscope.errors import DataError

ENDINGS = (".dcm", ".dicom", ".dic", ".ima")
_NAMED = 3  # ids that a message names


@dataclass(frozen=True, slots=True, kw_only=True)
class Matching:
    """Which id belongs to which name.

    Attributes:
        id_of: the id of each name that has one.
        ids_alone: ids without a name, in their order.
        names_alone: names without an id, in their order.
        ambiguous: what fits several, with all that it fits.
    """

    id_of: Mapping[str, str]
    ids_alone: tuple[str, ...]
    names_alone: tuple[str, ...]
    ambiguous: tuple[tuple[str, tuple[str, ...]], ...]

    def check(self, where: str) -> None:
        """Raise DataError if anything is ambiguous; ``where`` names the table with the ids."""
        if self.ambiguous:
            one, fits = self.ambiguous[0]
            more = f" ({len(self.ambiguous)} such cases)" if len(self.ambiguous) > 1 else ""
            msg = (
                f"{where}: {one} fits {listed(fits)}{more}. Write the folder into image_id (FOLDER/NAME), "
                "or give only one of them"
            )
            raise DataError(msg)


def bare_id(text: str) -> str:
    r"""Return an id without white space around it and without a DICOM ending.

    Examples:
        >>> bare_id(" IM0.DCM"), bare_id("1.2.7.1"), bare_id("1.2.7.1.dcm")
        ('IM0', '1.2.7.1', '1.2.7.1')
    """
    text = text.strip()
    if "." not in text:
        return text  # the common case, millions of times
    ending = next((ending for ending in ENDINGS if text[-len(ending) :].lower() == ending), "")
    bare = text[: -len(ending)] if ending else text
    return text if not bare or bare[-1] in "/\\" else bare


def id_key(text: str) -> str:
    r"""Return what two ids of the same image share: without an ending, in one case, with ``/`` between folders.

    Examples:
        >>> id_key("./Scans\\A\\im0.dcm") == id_key("scans/a/IM0")
        True
    """
    text = bare_id(text)
    text = text.lower() if text.isascii() else unicodedata.normalize("NFC", text).casefold()
    text = text.replace("\\", "/")
    return "/".join(part for part in text.split("/") if part not in ("", ".")) if "/" in text else text


def match_ids(ids: Iterable[str], names: Iterable[str], *, root: str = "") -> Matching:
    """Match ids with names.

    An id fits a name if they are equal (see ``id_key``), or if one ends in all parts of the other: ``IM0`` fits
    ``a/IM0.dcm``, and so does ``scans/a/IM0``. A name that equals an id is not given to others that only fit.

    Args:
        ids: of a table, each once.
        names: of files or of another table.
        root: the folder of the names: a name counts as ``root/name``, too.
    """
    ids, names = list(ids), list(names)
    by_last: dict[str, list[str] | str] = {}
    for one in ids:
        _add(by_last, id_key(one).rpartition("/")[2], one)
    id_of: dict[str, str] = {}
    taken: dict[str, list[str] | str] = {}
    ambiguous: list[tuple[str, tuple[str, ...]]] = []
    for name in names:
        found = _fitting(name, root, by_last)
        if len(found) > 1:
            ambiguous.append((name, tuple(found)))
        elif found:
            id_of[name] = found[0]
            _add(taken, found[0], name)
    ambiguous += [(one, tuple(several)) for one, several in taken.items() if isinstance(several, list)]
    ambiguous_names = {name for name, _ in ambiguous} | {name for _, several in ambiguous for name in several}
    return Matching(
        id_of=id_of,
        ids_alone=tuple(one for one in ids if one not in taken and one not in ambiguous_names),
        names_alone=tuple(name for name in names if name not in id_of and name not in ambiguous_names),
        ambiguous=tuple(ambiguous),
    )


def listed(names: Iterable[str], shown: int = _NAMED) -> str:
    """Return the first names, and how many more there are.

    Examples:
        >>> listed("abcde")
        'a, b, c and 2 more'
    """
    names = list(names)
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return f"{', '.join(names[:shown])}{more}"


def _add(table: dict[str, list[str] | str], key: str, one: str) -> None:
    """Add a value; lists only where several share a key, to save memory."""
    before = table.get(key)
    if before is None:
        table[key] = one
    elif isinstance(before, str):
        table[key] = [before, one]
    else:
        before.append(one)


def _fitting(name: str, root: str, by_last: Mapping[str, list[str] | str]) -> list[str]:
    """Return the ids that fit a name; if one equals the whole name, that one alone."""
    key = id_key(name)
    found = by_last.get(key.rpartition("/")[2], [])
    candidates = [found] if isinstance(found, str) else found
    whole = id_key(f"{root}/{name}") if root else key
    equal = [one for one in candidates if id_key(one) in (key, whole)]
    return equal or [one for one in candidates if _ends(id_key(one), whole) or _ends(whole, id_key(one))]


def _ends(whole: str, part: str) -> bool:
    return whole == part or whole.endswith(f"/{part}")
