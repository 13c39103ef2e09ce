"""Who may come in: a file of users with scrypt hashes, a file of tokens with SHA-256 hashes. Neither holds a secret.

Both hold a line an entry, ``NAME ROLE HASH``, and comments after ``#``. ``hemoscope users`` writes them. They are read
when the server starts; a session or token of somebody who is gone from them is worth nothing from the next start on.
"""

import hashlib
import hmac
import os
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from hemoscope.errors import ConfigError
from hemoscope.store.values import Role, User

# OWASP's Password Storage Cheat Sheet, scrypt: 32 MiB a hash, three passes.
_COST, _BLOCK, _PASSES = 1 << 15, 8, 3
_MEMORY = 2 * 128 * _COST * _BLOCK
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
_TOKEN_HASH = re.compile(r"[0-9a-f]{64}")
_PASSWORD_HASH = re.compile(r"scrypt:\d{1,8}:\d{1,3}:\d{1,3}:[0-9a-f]{32}:[0-9a-f]{64}")
_SHORTEST_PASSWORD = 12
_LONGEST_PASSWORD = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """Users by name with their password hashes, and tokens by hash; falsy when there is nobody."""

    users: Mapping[str, tuple[User, str]] = field(default_factory=lambda: MappingProxyType({}))
    tokens: Mapping[str, User] = field(default_factory=lambda: MappingProxyType({}))

    def __bool__(self) -> bool:
        """Whether anybody has to log in at all."""
        return bool(self.users or self.tokens)

    def knows(self, user: User) -> bool:
        """Whether this name still stands in a file, with this role."""
        return user in self.tokens.values() or user in (known for known, _ in self.users.values())

    def user_of_token(self, token: str) -> User | None:
        """Return whose token it is; every hash is compared, each in constant time."""
        given = hash_token(token)
        found = None
        for known, user in self.tokens.items():
            if hmac.compare_digest(known, given):
                found = user
        return found

    def user_of_password(self, name: str, password: str) -> User | None:
        """Return the user if the password is right; an unknown name takes as long as a wrong password."""
        user, known = self.users.get(name, (None, _NOBODY))
        right = check_password(password, known)
        return user if right else None


def load_credentials(*, users: Path | None, tokens: Path | None) -> Credentials:
    """Read both files.

    Raises:
        ConfigError: a file cannot be read, may be read by everybody, is empty or has a line that is no entry.

    """
    password_lines = _entries(users, _PASSWORD_HASH) if users else []
    token_lines = _entries(tokens, _TOKEN_HASH) if tokens else []
    if repeated := _repeated([user.name for user, _ in password_lines]):
        msg = f"the user file names {repeated} twice. Leave one line of it"
        raise ConfigError(msg)
    return Credentials(
        users=MappingProxyType({user.name: (user, hashed) for user, hashed in password_lines}),
        tokens=MappingProxyType({hashed: user for user, hashed in token_lines}),
    )


def hash_token(token: str) -> str:
    """SHA-256 of a token; tokens are long and random, so that no slow hash is needed."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def hash_password(password: str) -> str:
    """Return ``scrypt:COST:BLOCK:PASSES:SALT:HASH`` with a new salt.

    Raises:
        ConfigError: the password is too short or too long.

    """
    if not _SHORTEST_PASSWORD <= len(password) <= _LONGEST_PASSWORD:
        msg = f"a password has {_SHORTEST_PASSWORD} to {_LONGEST_PASSWORD} characters, this one has {len(password)}"
        raise ConfigError(msg)
    salt = secrets.token_bytes(16)
    return f"scrypt:{_COST}:{_BLOCK}:{_PASSES}:{salt.hex()}:{_scrypt(password, salt, _COST, _BLOCK, _PASSES).hex()}"


def check_password(password: str, hashed: str) -> bool:
    """Whether ``hashed`` was made of this password, compared in constant time."""
    _, cost, block, passes, salt, expected = hashed.split(":")
    given = _scrypt(password[:_LONGEST_PASSWORD], bytes.fromhex(salt), int(cost), int(block), int(passes))
    return hmac.compare_digest(given, bytes.fromhex(expected))


def write_entry(file: Path, name: str, role: Role, hashed: str) -> None:
    """Add an entry to a file, or replace the one of that name; the file is private and never half written.

    Raises:
        ConfigError: the name is not one, or the file cannot be written.

    """
    if not _NAME.fullmatch(name):
        msg = "a user's name has letters, digits and . _ @ - (at most 64), and begins with a letter or digit"
        raise ConfigError(msg)
    kept = [line for line in _lines(file) if line.split()[:1] != [name]] if file.exists() else []
    _replace(file, [*kept, f"{name} {role.value} {hashed}"])


def remove_entry(file: Path, name: str) -> None:
    """Remove a name from a file.

    Raises:
        ConfigError: the file does not name it.

    """
    lines = _lines(file)
    kept = [line for line in lines if line.split()[:1] != [name]]
    if len(kept) == len(lines):
        msg = f"the file {file.name} does not name that user. It names: {', '.join(_names(lines)) or 'nobody'}"
        raise ConfigError(msg)
    _replace(file, kept)


def _scrypt(password: str, salt: bytes, cost: int, block: int, passes: int) -> bytes:
    secret = password.encode("utf-8", "surrogatepass")
    return hashlib.scrypt(secret, salt=salt, n=cost, r=block, p=passes, maxmem=_MEMORY, dklen=32)


def _entries(file: Path, hashed: re.Pattern[str]) -> list[tuple[User, str]]:
    if file.exists() and file.stat().st_mode & 0o007:
        msg = f"the file {file.name} may be read by every user of this machine. Run: chmod o-rwx {file.name}"
        raise ConfigError(msg)
    found = []
    for number, line in enumerate(_lines(file), 1):
        if not (content := line.partition("#")[0].split()):
            continue
        if len(content) != 3 or content[1] not in set(Role) or not hashed.fullmatch(content[2]):
            msg = (
                f"line {number} of {file.name} is not NAME ROLE HASH with role {' or '.join(Role)}. "
                "Write the file by hemoscope users add, or hemoscope users token"
            )
            raise ConfigError(msg)
        found.append((User(name=content[0], role=Role(content[1])), content[2]))
    if not found:
        msg = f"the file {file.name} names nobody. Add somebody by hemoscope users add, or hemoscope users token"
        raise ConfigError(msg)
    return found


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        msg = f"cannot read {file.name} ({type(error).__name__}). Give a file that hemoscope users made"
        raise ConfigError(msg) from error


def _names(lines: Sequence[str]) -> list[str]:
    return [line.split()[0] for line in lines if line.split() and not line.startswith("#")]


def _repeated(names: Sequence[str]) -> str:
    return next((name for name in names if names.count(name) > 1), "")


def _replace(file: Path, lines: Sequence[str]) -> None:
    beside = file.with_name(f".{file.name}.{secrets.token_hex(4)}")
    try:
        with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as stream:
            stream.writelines(f"{line}\n" for line in lines)
            stream.flush()
            os.fsync(stream.fileno())
        beside.replace(file)
    except OSError as error:
        msg = f"cannot write {file.name} ({error.strerror}). Give a file in a folder that you may write"
        raise ConfigError(msg) from error


# Nobody has this password: its hash is not one of anything.
_NOBODY = f"scrypt:{_COST}:{_BLOCK}:{_PASSES}:{'0' * 32}:{'0' * 64}"
