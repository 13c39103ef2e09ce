"""Pseudonyms: the same key gives the same one for the same identity, and knows its own pseudonyms again."""

import hashlib
import hmac

_HALF = 8  # bytes of a pseudonym derived from the identity; as many again authenticate it by the key


def pseudonymous_uid(uid: str, key: bytes) -> str:
    """Return the pseudonym of a UID (under 2.25, PS3.5 B.2); a pseudonym of the same key is returned unchanged."""
    root, _, number = uid.partition("2.25.")
    if not root and number.isdecimal() and int(number) < 1 << 128 and _is_ours(int(number).to_bytes(16, "big"), key):
        return uid
    return f"2.25.{int.from_bytes(_pseudonym(uid, key), 'big')}"


def pseudonymous_id(patient_id: str, key: bytes) -> str:
    """Return the pseudonym of a patient ID; a pseudonym of the same key is returned unchanged."""
    try:
        known = bytes.fromhex(patient_id.removeprefix("H"))
    except ValueError:
        known = b""
    return patient_id if _is_ours(known, key) else f"H{_pseudonym(patient_id, key).hex()}"


def _pseudonym(identity: str, key: bytes) -> bytes:
    head = hmac.digest(key, identity.encode("utf-8", "surrogatepass"), hashlib.sha256)[:_HALF]
    return head + hmac.digest(key, head, hashlib.sha256)[:_HALF]


def _is_ours(value: bytes, key: bytes) -> bool:
    head, proof = value[:_HALF], value[_HALF:]
    return len(value) == 2 * _HALF and hmac.compare_digest(proof, hmac.digest(key, head, hashlib.sha256)[:_HALF])
