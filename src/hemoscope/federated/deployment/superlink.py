"""A federation's server: Flower's SuperLink with TLS and keys for every site, and nothing else open to a network.

Flower's SuperLink serves three interfaces on one port. Only one is for sites ("fleet"), and there every request carries
a signature of a registered key. The others (to start runs and register sites; for the server's own processes) ask for
no account at all, so here they answer to this machine alone: whoever else asks gets 403. Do not put a reverse proxy on
the same machine in front: everybody would seem to come from it.
"""

import argparse
import contextlib
import functools
import ipaddress
import json
import os
import socket
import sys
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvicorn

from hemoscope.errors import FederationError, HemoscopeError
from hemoscope.evaluation.flow import counted
from hemoscope.federated.deployment.database import OperationalError, answer_unavailable, wait_for_locks
from hemoscope.federated.deployment.keys import ServerKeys, read_server_keys
from hemoscope.federated.deployment.processes import CANNOT_RUN, LOOPBACK, tie_to_parent
from hemoscope.federated.deployment.signed_app import app_id, read_signed_app
from hemoscope.federated.flower_internals import (
    NOOP_ACCOUNT_NAME,
    NOOP_FEDERATION_ID,
    NOOP_FLWR_AID,
    Fab,
    NodeStatus,
    NoOpControlAuthnPlugin,
    SuperLinkLifespan,
    SuperLinkLifespanConfig,
    TaskType,
    create_app,
)
from hemoscope.files import write_bytes, write_text

HEARTBEAT = 30.0  # seconds; a site that is silent for longer counts as away
FOR_SITES = "/v1/fleet/"

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopbackGuard:
    """An ASGI application that lets through from elsewhere only what is for sites."""

    app: App

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ClientUpdate 403 to everything but the sites' own paths, unless it comes from this machine."""
        if scope["type"] == "lifespan" or _for_sites(scope) or is_loopback(scope.get("client")):
            await self.app(scope, receive, send)
            return
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
            return
        await send({"type": "http.response.start", "status": 403, "headers": [(b"content-type", b"text/plain")]})
        await send({"type": "http.response.body", "body": b"only for the server's own machine\n"})


def is_loopback(client: tuple[str, int] | None) -> bool:
    """Whether a connection comes from this machine; one of unknown origin does not."""
    if client is None:
        return False
    try:
        address = ipaddress.ip_address(client[0])
    except ValueError:
        return False
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback


def serve(keys_folder: Path, folder: Path, *, host: str, port: int, app_folder: Path | None = None) -> None:
    """Serve until a signal ends it. Environment: see ``processes.flower_environment``; paths: under ``folder``.

    Args:
        keys_folder: the server's part of the keys.
        folder: the state: database, jobs, ``server.json`` for ``hemoscope federated run``.
        host: where sites connect; loopback is always served as well.
        port: the port; 0 for a free one.
        app_folder: what sites run; our stub if None.

    Raises:
        FederationError: keys are wrong, the app is not signed, or the port is taken.

    """
    keys = read_server_keys(keys_folder)
    signed = read_signed_app(keys_folder, keys.signs, app_folder)
    (folder / "jobs").mkdir(parents=True, exist_ok=True, mode=0o700)
    wait_for_locks()
    with contextlib.ExitStack() as stack:
        application = create_app(lifespan_config(keys_folder, folder, port=port), SuperLinkLifespan)
        application.add_exception_handler(OperationalError, answer_unavailable)
        state = application.state.linkstate_factory.state()
        register_sites(state, keys)
        store_app(state, signed, app_id(app_folder))
        # Not before the application is ready: a client whose TLS handshake is not answered gives up for good.
        listeners = _listen(host, port)
        for listener in listeners:
            stack.enter_context(contextlib.closing(listener))
        described = {
            "app": app_id(app_folder),
            "hash": signed.hash_str,
            "port": int(listeners[0].getsockname()[1]),
            "sites": len(keys.sites),
            "pid": os.getpid(),
        }
        options = uvicorn.Config(
            app=LoopbackGuard(app=application),
            ssl_certfile=str(keys.certificate),
            ssl_keyfile=str(keys.private_key),
            proxy_headers=False,  # a header must not say where a connection comes from
            access_log=False,
            log_level="warning",
            timeout_graceful_shutdown=3,
        )
        line = f"ready on {host}:{described['port']} for {counted(len(keys.sites), 'sites')}"
        announce = functools.partial(_announce, folder, keys, described, line)
        _AnnouncingServer(options, announce).run(sockets=listeners)


def lifespan_config(keys_folder: Path, folder: Path, *, port: int) -> SuperLinkLifespanConfig:
    """Flower's own settings of a SuperLink: TLS everywhere, keys for sites, no installation at run time."""
    authority, certificate, key = (str(keys_folder / name) for name in ("ca.crt", "server.crt", "server.key"))
    return SuperLinkLifespanConfig(
        control_address=f"{LOOPBACK}:0",
        health_server_address=None,
        host=LOOPBACK,  # where the server's own processes reach it
        port=port,
        insecure=False,
        certificates=(
            Path(authority).read_bytes(),
            Path(certificate).read_bytes(),
            Path(key).read_bytes(),
        ),
        superexec_auth_secret=None,
        authn_plugin=NoOpControlAuthnPlugin(),
        event_log_plugin=None,
        fleet_event_log_plugin=None,
        enable_event_log=False,
        artifact_provider=None,
        enable_supernode_auth=True,
        fleet_api_type="grpc-rere",
        fleet_api_address=None,
        simulation=False,
        ssl_ca_certfile=authority,
        ssl_certfile=certificate,
        ssl_keyfile=key,
        database=str(folder / "superlink.db"),
        isolation="process",  # its executor is started and watched by our supervisor, not by the SuperLink
        runtime_dependency_install=False,
    )


def register_sites(state: Any, keys: ServerKeys) -> None:
    """Admit the sites whose keys lie in the server's folder, and them alone: a key that was taken away is shut out."""
    known = {
        node.public_key: node.node_id
        for node in state.get_node_info(owner_aids=[NOOP_FLWR_AID])
        if node.status != NodeStatus.UNREGISTERED
    }
    for public_key, node in known.items():
        if public_key not in keys.sites.values():
            state.delete_node(NOOP_FLWR_AID, node)
    for name, public_key in keys.sites.items():
        if public_key not in known:
            state.create_node(NOOP_FLWR_AID, NOOP_ACCOUNT_NAME, public_key, HEARTBEAT, name=name)


def store_app(state: Any, signed: Fab, name: str) -> None:
    """Keep the signed app in Flower's database, where a run asks for it by its name and hash."""
    state.store_app(
        fab=signed,
        federation_id=NOOP_FEDERATION_ID,
        app_id=name,
        app_type=TaskType.SERVER_APP,
        added_by=NOOP_FLWR_AID,
    )


def _for_sites(scope: Scope) -> bool:
    return scope["type"] == "http" and str(scope["path"]).startswith(FOR_SITES)


def _listen(host: str, port: int) -> list[socket.socket]:
    """Sockets on loopback and, if it is another address, on ``host``; one for all addresses serves loopback too."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError as error:
        raise FederationError(f"--host {host} is not an address. Give this machine's, such as 0.0.0.0") from error
    everywhere = address.is_unspecified
    try:
        if everywhere and address.version == 6:
            return [socket.create_server((host, port), family=socket.AF_INET6, dualstack_ipv6=True)]
        first = socket.create_server(("0.0.0.0" if everywhere else LOOPBACK, port))  # noqa: S104  asked for
        if everywhere or host == LOOPBACK:
            return [first]
        family = socket.AF_INET if address.version == 4 else socket.AF_INET6
        return [first, socket.create_server((host, first.getsockname()[1]), family=family)]
    except OSError as error:
        raise FederationError(f"cannot listen on {host}:{port}: {error.strerror}. Choose another --port") from error


def _announce(folder: Path, keys: ServerKeys, described: Mapping[str, object], line: str) -> None:
    write_bytes(folder / "ca.crt", keys.authority.read_bytes())
    write_text(folder / "server.json", json.dumps(described, indent=2) + "\n")
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


class _AnnouncingServer(uvicorn.Server):
    """Says that it listens, for people and for programs."""

    def __init__(self, options: uvicorn.Config, announce: Callable[[], None]) -> None:
        super().__init__(options)
        self._announce = announce

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start as uvicorn does, then say so."""
        await super().startup(sockets)
        self._announce()


def main() -> int:
    """``python -P -m hemoscope.federated.deployment.superlink``: what ``hemoscope federated server`` keeps alive."""
    parser = argparse.ArgumentParser(prog="hemoscope.federated.deployment.superlink")
    parser.add_argument("--keys", type=Path, required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--host", default=LOOPBACK)
    parser.add_argument("--port", type=int, default=9092)
    parser.add_argument("--app", type=Path)
    given = parser.parse_args()
    os.umask(0o077)
    tie_to_parent()
    try:
        serve(given.keys, given.folder, host=given.host, port=given.port, app_folder=given.app)
    except HemoscopeError as error:
        sys.stderr.write(f"hemoscope federated server: {error}\n")
        return CANNOT_RUN
    except KeyboardInterrupt:  # how a server is stopped; uvicorn has closed everything and says it again
        pass
    return 0


if __name__ == "__main__":
    sys.exit(main())
