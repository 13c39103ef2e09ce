"""UIDs derived from what an object says: the same content has the same UID, and other content has another.

So an object that is made or sent twice doubles nothing in a PACS, and one whose content changed replaces nothing.
"""

import hashlib
from uuid import UUID, uuid5

# Names of Hemoscope's results among the name-based UUIDs of RFC 4122; it must never change.
_NAMESPACE = UUID("6f1ad0e4-6f0c-4a6b-9d5e-1f0f0d3c6a55")


def derived_uid(*parts: str) -> str:
    """Return the UID that belongs to these texts, in order: the root 2.25 and a name-based UUID (PS3.5 B.2).

    Examples:
        >>> derived_uid("a", "b") == derived_uid("a", "b") != derived_uid("ab")
        True
    """
    lengths = "".join(f"{len(part)}:{part}" for part in parts)
    return f"2.25.{uuid5(_NAMESPACE, hashlib.sha256(lengths.encode()).hexdigest()).int}"
