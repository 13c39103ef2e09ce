"""Users of a site, from a text file: one ``name:role:hash`` a line, made by ``hash_password``.

Passwords are hashed with scrypt (RFC 7914) from the standard library, each with a salt and its cost in the line.
"""

import hashlib
import hmac
import re
import secrets
from collections.abc import Mapping
from pathlib import Path

from hemoscope.errors import ConfigError
from hemoscope.store.values import Role, User

SHORTEST_PASSWORD = 12
_LONGEST_PASSWORD = 1024
# About 60 ms and 32 MiB per attempt: expensive for an attacker, unnoticed at a login.
_COST, _BLOCK, _LANES = 1 << 15, 8, 1
_MEMORY = 128 * _COST * _BLOCK * 3
_LINE = re.compile(
    r"(?P<name>[A-Za-z0-9._@-]{1,64}):(?P<role>reader|admin):scrypt\$(?P<n>\d{1,7})\$(?P<r>\d{1,2})\$(?P<p>\d{1,2})"
    r"\$(?P<salt>[0-9a-f]{32})\$(?P<hash>[0-9a-f]{64})"
)
_FORM = "Write one name:role:hash a line, the role reader or admin, the hash made by hash_password"


class Users:
    """The users who may log in, with their password hashes."""

    def __init__(self, lines: Mapping[str, tuple[User, str]]) -> None:
        """Keep users and the hashes of their passwords, keyed by name."""
        self._lines = dict(lines)
        self._nobody = hash_password(secrets.token_hex(16))

    def __len__(self) -> int:
        """Number of users."""
        return len(self._lines)

    def __contains__(self, user: User) -> bool:
        """Whether the file still names this user, with this role: a session is void without either."""
        known, _ = self._lines.get(user.name, (None, ""))
        return known == user

    def entries(self) -> set[tuple[str, str]]:
        """Each name with its role and hash, to compare two versions of a file."""
        return {(name, f"{user.role.value}:{line}") for name, (user, line) in self._lines.items()}

    def names(self, name: str) -> bool:
        """Whether the file names a user so."""
        return name in self._lines

    def verify(self, name: str, password: str) -> User | None:
        """Return the user whose password this is, or None; an unknown name takes as long as a wrong password."""
        user, line = self._lines.get(name, (None, self._nobody))
        return user if _matches(password, line) else None


def load_users(path: Path) -> Users:
    """Read a user file; empty lines and lines that begin with # are ignored.

    Raises:
        ConfigError: the file cannot be read, holds no user, or a line is malformed or names a user twice.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        msg = f"the user file {path.name} cannot be read ({type(error).__name__}). {_FORM}"
        raise ConfigError(msg) from error
    users: dict[str, tuple[User, str]] = {}
    for number, line in enumerate(map(str.strip, lines), 1):
        if not line or line.startswith("#"):
            continue
        found = _LINE.fullmatch(line)
        sound = found is not None and _affordable(int(found["n"]), int(found["r"]), int(found["p"]))
        if found is None or not sound or found["name"] in users:
            what = "a second line of one user" if found is not None and sound else "malformed"
            msg = f"{path.name}: line {number} is {what}. {_FORM}"
            raise ConfigError(msg)
        users[found["name"]] = User(name=found["name"], role=Role(found["role"])), line.split(":", 2)[2]
    if not users:
        msg = f"{path.name} names no user. {_FORM}"
        raise ConfigError(msg)
    return Users(users)


def _affordable(cost: int, block: int, lanes: int) -> bool:
    """Whether scrypt takes these parameters and needs no more than twice our own time."""
    power_of_two = cost > 1 and cost & (cost - 1) == 0
    return power_of_two and block > 0 and lanes > 0 and cost * block * lanes <= 2 * _COST * _BLOCK * _LANES


def check_password(password: str) -> None:
    """Refuse a password that is too short, too long or only spaces. Raises ConfigError, without the password in it."""
    if not SHORTEST_PASSWORD <= len(password) <= _LONGEST_PASSWORD:
        msg = f"a password has {SHORTEST_PASSWORD} to {_LONGEST_PASSWORD} characters, this one has {len(password)}"
        raise ConfigError(msg)
    if not password.strip():
        msg = "a password needs other characters than spaces"
        raise ConfigError(msg)


def hash_password(password: str) -> str:
    """Return what stands in the user file for a password: ``scrypt$n$r$p$salt$hash``."""
    salt = secrets.token_bytes(16)
    digest = _scrypt(password, salt, _COST, _BLOCK, _LANES)
    return f"scrypt${_COST}${_BLOCK}${_LANES}${salt.hex()}${digest.hex()}"


def _matches(password: str, line: str) -> bool:
    _, cost, block, lanes, salt, expected = line.split("$")
    digest = _scrypt(password, bytes.fromhex(salt), int(cost), int(block), int(lanes))
    return hmac.compare_digest(digest.hex(), expected)


def _scrypt(password: str, salt: bytes, cost: int, block: int, lanes: int) -> bytes:
    secret = password.encode("utf-8", "surrogatepass")
    return hashlib.scrypt(secret, salt=salt, n=cost, r=block, p=lanes, maxmem=_MEMORY, dklen=32)
