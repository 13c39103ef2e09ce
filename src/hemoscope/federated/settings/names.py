"""Names of federations, parts and sites: they name folders at places that do not know who wrote them."""

import re

from hemoscope.errors import ConfigError

WAITING_FOR_SITES = "waiting for sites"  # a stage of a run
SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


def check_name(where: str, name: str) -> None:
    """Raise ConfigError unless a name is safe as a folder's."""
    if not SAFE_NAME.fullmatch(name):
        msg = f"{where} {name!r} must begin with a letter or digit, then letters, digits, '_', '.', '-', at most 64"
        raise ConfigError(msg)
