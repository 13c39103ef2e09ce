"""Credentials: users with password hashes (``store.users``) and bearer tokens with SHA-256 hashes, both in files.

Neither file holds a secret; ``hemoscope users`` writes both, one entry per line: ``name:role:hash``. They are read when
the server starts, and on SIGHUP: sessions and tokens of removed users are invalid from then on.
"""

import hashlib
import hmac
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from hemoscope.errors import ConfigError
from hemoscope.files import write_text
from hemoscope.store.users import Users, load_users
from hemoscope.store.values import Role, User

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
_TOKEN_LINE = re.compile(r"(?P<name>[A-Za-z0-9._@-]{1,64}):(?P<role>reader|admin):(?P<hash>sha256\$[0-9a-f]{64})")


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """Users with passwords, and tokens by hash; falsy if there are none."""

    users: Users | None = None
    tokens: Mapping[str, User] = field(default_factory=lambda: MappingProxyType({}))

    def __bool__(self) -> bool:
        """Whether a login is required at all."""
        return self.users is not None or bool(self.tokens)

    def knows(self, user: User) -> bool:
        """Whether a file still names this user with this role."""
        return user in self.tokens.values() or (self.users is not None and user in self.users)

    def changed_in(self, newer: "Credentials") -> frozenset[str]:
        """Return the names of which an entry is missing in ``newer``, or has another role, password or token."""
        return frozenset(name for name, _ in self._entries() - newer._entries())

    def _entries(self) -> set[tuple[str, str]]:
        tokens = {(user.name, f"{user.role.value}:{hashed}") for hashed, user in self.tokens.items()}
        return tokens | (set() if self.users is None else self.users.entries())

    def names(self, name: str) -> bool:
        """Whether a user with a password is called so."""
        return self.users is not None and self.users.names(name)

    def user_of_token(self, token: str) -> User | None:
        """Return the user of a token; every hash is compared, each in constant time."""
        given, found = hash_token(token), None
        for known, user in self.tokens.items():
            if hmac.compare_digest(known, given):
                found = user
        return found

    def user_of_password(self, name: str, password: str) -> User | None:
        """Return the user if the password is right; blocks for about a tenth of a second."""
        return None if self.users is None else self.users.verify(name, password)


def load_credentials(*, users: Path | None, tokens: Path | None) -> Credentials:
    """Read both files, either may be None.

    Raises:
        ConfigError: a file cannot be read, may be read by everybody, is empty or has a malformed line.

    """
    for file in filter(None, (users, tokens)):
        _check_private(file)
    return Credentials(
        users=None if users is None else load_users(users),
        tokens=MappingProxyType({} if tokens is None else _load_tokens(tokens)),
    )


def hash_token(token: str) -> str:
    """Return ``sha256$HEX``; tokens are long and random, so that no slow hash is needed."""
    return "sha256$" + hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def write_entry(file: Path, name: str, role: Role, hashed: str) -> None:
    """Add an entry to a file, or replace the one of that name; the file is private and written atomically.

    Raises:
        ConfigError: the name is malformed, or the file cannot be written.

    """
    if not _NAME.fullmatch(name):
        msg = "a user's name has letters, digits and . _ @ - (at most 64), and begins with a letter or digit"
        raise ConfigError(msg)
    kept = [line for line in _lines(file) if not _is_of(line, name)] if file.exists() else []
    _replace(file, [*kept, f"{name}:{role.value}:{hashed}"])


def remove_entry(file: Path, name: str) -> None:
    """Remove a name from a file.

    Raises:
        ConfigError: the file does not name it.

    """
    lines = _lines(file)
    kept = [line for line in lines if not _is_of(line, name)]
    if len(kept) == len(lines):
        msg = f"{file.name} does not name that user. Look at the names at the start of its lines"
        raise ConfigError(msg)
    _replace(file, kept)


def _load_tokens(file: Path) -> dict[str, User]:
    tokens = {}
    for number, line in enumerate(_lines(file), 1):
        if not line or line.startswith("#"):
            continue
        found = _TOKEN_LINE.fullmatch(line)
        if found is None:
            msg = (
                f"{file.name}: line {number} is not name:role:sha256$HASH with role reader or admin. "
                "Write the file by: hemoscope users token NAME --token-file FILE"
            )
            raise ConfigError(msg)
        tokens[found["hash"]] = User(name=found["name"], role=Role(found["role"]))
    if not tokens:
        msg = f"{file.name} holds no token. Add one by: hemoscope users token NAME --token-file FILE"
        raise ConfigError(msg)
    return tokens


def _check_private(file: Path) -> None:
    if file.exists() and file.stat().st_mode & 0o007:
        msg = f"{file.name} may be read by every user of this machine. Run: chmod o-rwx on it"
        raise ConfigError(msg)


def _is_of(line: str, name: str) -> bool:
    return line.partition(":")[0] == name


def _lines(file: Path) -> list[str]:
    try:
        return [line.strip() for line in file.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        msg = f"cannot read {file.name} ({type(error).__name__}). Give a file that hemoscope users made"
        raise ConfigError(msg) from error


def _replace(file: Path, lines: Sequence[str]) -> None:
    try:
        write_text(file, "".join(f"{line}\n" for line in lines), mode=0o600)
    except OSError as error:
        msg = f"cannot write {file.name} ({error.strerror}). Give a file in a folder that you may write"
        raise ConfigError(msg) from error
