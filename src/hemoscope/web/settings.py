"""The settings of the web processes, as one checked value; ``cli`` makes it of files, environment and options."""

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from hemoscope.errors import ConfigError
from hemoscope.web.credentials import Credentials

LOOPBACK_NAMES = ("localhost", "127.0.0.1", "[::1]")


@dataclass(frozen=True, slots=True, kw_only=True)
class RateLimits:
    """Requests that one client may make: a burst of ``requests`` and ``logins``, then that many a minute."""

    requests: int = 6000
    logins: int = 10

    def __post_init__(self) -> None:
        """Reject a limit that would refuse everything."""
        if self.requests < 1 or self.logins < 1:
            msg = f"rate limits must be at least 1 a minute, got {self.requests} requests and {self.logins} logins"
            raise ConfigError(msg)


@dataclass(frozen=True, slots=True, kw_only=True)
class WebSettings:
    """How the reading room is served.

    Attributes:
        host, port: where it listens.
        allowed_hosts: further host names that a browser may have in its address bar.
        credentials: users and tokens; empty means one local administrator without login, on loopback alone.
        trusted_proxies: addresses whose ``X-Forwarded-For`` and ``X-Forwarded-Proto`` are believed.
        identity_shown: the site chose to store and show patient name and id.
        prevalence: share of studies with a bleed, until an admin sets another; None where unknown.
        model_card: what ``hemoscope info --json`` prints.
        session: how long a login lasts.
        upload_bytes: size of one upload, checked again by the store.
        concurrent_uploads: uploads that one process takes at a time; the next is told to try again.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    allowed_hosts: tuple[str, ...] = ()
    credentials: Credentials = field(default_factory=Credentials)
    trusted_proxies: tuple[str, ...] = ()
    identity_shown: bool = False
    prevalence: float | None = None
    model_card: Mapping[str, Any] = field(default_factory=dict)
    session: timedelta = timedelta(hours=12)
    rates: RateLimits = field(default_factory=RateLimits)
    upload_bytes: int = 4 << 30
    concurrent_uploads: int = 32

    def __post_init__(self) -> None:
        """Refuse what would be open to others, or out of range.

        Raises:
            ConfigError: naming the option and the remedy.

        """
        if not self.credentials and not is_loopback(self.host):
            msg = (
                f"--host {self.host} lets other machines in, and nobody would have to log in. Give --users FILE or "
                "--token-file FILE (hemoscope users --help makes them), or keep --host 127.0.0.1"
            )
            raise ConfigError(msg)
        if not self.credentials and (self.allowed_hosts or self.trusted_proxies):
            msg = (
                "--allowed-host and --trusted-proxy let other machines in through a proxy, and nobody would have to "
                "log in. Give --users FILE or --token-file FILE (hemoscope users --help makes them)"
            )
            raise ConfigError(msg)
        if self.prevalence is not None and not 0 < self.prevalence < 1:
            msg = f"--prevalence is a share between 0 and 1, such as 0.1, got {self.prevalence}"
            raise ConfigError(msg)
        if not 0 <= self.port <= 65535:
            msg = f"--port is 0 to 65535 (0: any free one), got {self.port}"
            raise ConfigError(msg)

    @property
    def host_names(self) -> frozenset[str]:
        """Every name, without port and in lower case, under which requests are answered."""
        bound = () if self.host in {"0.0.0.0", "::", ""} else (bracketed(self.host),)  # noqa: S104 (a comparison)
        return frozenset(name.lower() for name in (*LOOPBACK_NAMES, *bound, *self.allowed_hosts))


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach ``host``; a name other than ``localhost`` is not believed."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def bracketed(host: str) -> str:
    """An address as it stands in a URL: IPv6 in brackets."""
    return f"[{host}]" if ":" in host and not host.startswith("[") else host
