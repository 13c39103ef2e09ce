"""What SIGHUP does: reads users, tokens, the certificate and the file of the node again, without a restart.

Sessions of users who were removed, or whose role, password or token changed, end at once, in every process that shares
the database. What cannot be read changes nothing: what was read before still counts, and ``/health`` says so.
"""

import asyncio
import logging
from functools import partial

from anyio import to_thread

from hemoscope.errors import ConfigError, StoreError
from hemoscope.store.background import described
from hemoscope.web.app_state import AppState
from hemoscope.web.connections import Connections
from hemoscope.web.credentials import load_credentials
from hemoscope.web.tls import tls_context

_log = logging.getLogger(__name__)
_Fault = tuple[str, str]  # what /health says, and the line of the log


class Reloading:
    """Reloads what the settings of one process name."""

    def __init__(self, state: AppState, connections: Connections) -> None:
        """Remember where it goes."""
        self._state = state
        self._connections = connections
        self._to_end: frozenset[str] = frozenset()
        self._one_at_a_time = asyncio.Lock()

    async def reload(self) -> None:
        """Read everything again, one reload after the other: an older one that ends later would undo the newer one.

        The log and ``/health`` have what could not be read.
        """
        async with self._one_at_a_time:
            await self._reload()

    async def _reload(self) -> None:
        read = await self._reload_credentials(), await self._reload_tls(), await self._reload_node()
        faults = [fault for fault in read if fault]
        self._state.reload_fault = " ".join(shown for shown, _ in faults) or None
        for _, line in faults:  # once /health says so too
            _log.error("%s", line)
        if not faults:
            _log.info("users, tokens, certificate and node were read again")

    async def _reload_credentials(self) -> _Fault | None:
        state, settings = self._state, self._state.settings
        if not settings.login_required:
            return None
        load = partial(load_credentials, users=settings.users, tokens=settings.token_file)
        try:
            read = await to_thread.run_sync(load)
        except (ConfigError, OSError) as error:
            line = f"users and tokens were not read again, the old ones still count: {_reason(error)}"
            return "Users and tokens could not be read again: the old ones still count.", line
        self._to_end |= state.credentials.changed_in(read)
        ended, state.credentials = self._to_end, read
        try:
            await to_thread.run_sync(state.store.close_sessions_of, ended)
        except StoreError as error:
            # Removed users are out all the same; a changed password would leave its old sessions open.
            line = f"sessions of {len(ended)} changed users were not ended, reload again: {described(error)}"
            return "Sessions of changed users could not be ended, as the database did not answer.", line
        self._to_end = frozenset()
        _log.info("%d users were removed or changed, their sessions have ended", len(ended))
        return None

    async def _reload_tls(self) -> _Fault | None:
        if self._state.settings.tls is None:
            return None
        try:
            self._connections.tls = await to_thread.run_sync(tls_context, *self._state.settings.tls)
        except ConfigError as error:
            line = f"the certificate was not read again, the old one is still used: {_reason(error)}"
            return "The certificate could not be read again: the old one is still used.", line
        return None

    async def _reload_node(self) -> _Fault | None:
        if self._state.settings.node is None or self._state.reload_node is None:
            return None
        try:
            await to_thread.run_sync(self._state.reload_node)
        except ConfigError as error:
            line = f"the file of the node was not read again, the old settings still count: {_reason(error)}"
            return "The file of the node could not be read again: the old settings still count.", line
        return None


def _reason(error: Exception) -> str:
    """Our own errors name the file and the line; the text of another may hold a path."""
    return str(error) if isinstance(error, ConfigError) else described(error)
