"""A site of a federation: Flower's SuperNode, which fetches work from the server; nobody connects to a site."""

from pathlib import Path

from hemoscope.errors import ConfigError
from hemoscope.federated.keys import SiteKeys
from hemoscope.federated.processes import flower_program, free_port


def supernode_command(site: Path, keys: SiteKeys, *, server: str, port: int | None = None) -> list[str]:
    """The command line of Flower's SuperNode for a site.

    The path of the site's file is in it and stays on this machine: a node's configuration is never sent.

    Args:
        site: the site's file; it is what the client app reads first.
        keys: the site's keys.
        server: ``HOST:PORT``.
        port: where the site's own processes reach the SuperNode, on loopback; a free one if None.

    Raises:
        ConfigError: the server's address has no port, or the site's path cannot be written in Flower's configuration.
        FederationError: Flower is not installed.

    """
    host, _, number = server.rpartition(":")
    if not host or not number.isdigit():
        raise ConfigError(f"--server {server} has no port. Give HOST:PORT, such as server.example:9092")
    path = str(site.absolute())
    if '"' in path or "'" in path or "\\" in path:
        raise ConfigError(f"{site.name} lies under a name with a quotation mark or a backslash. Move it elsewhere.")
    return [
        str(flower_program("flower-supernode")),
        *("--superlink", server),
        *("--root-certificates", str(keys.authority.absolute())),
        *("--auth-supernode-private-key", str(keys.private_key.absolute())),
        *("--trusted-entities", str(keys.trusted.absolute())),
        *("--node-config", f'site="{path}"'),
        *("--host", "127.0.0.1"),
        *("--port", str(port or free_port())),
    ]
