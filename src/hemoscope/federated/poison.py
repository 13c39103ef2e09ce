"""Sites that work against the others, for demonstrations and tests: labels turned round, or an update made 100x longer.

Nothing here is reachable from a real deployment: ``hemoscope federated simulate --poison site-2=flip`` alone uses it.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import Context, Message, MessageType

from hemoscope.data.cache import Cache
from hemoscope.federated.messages import ARRAYS, pack, unpack
from hemoscope.federated.simulated_sites import site_folder
from hemoscope.federated.site import Site, read_site
from hemoscope.labels import LABELS

SCALE = 100.0
_PARTITION = "partition-id"  # Flower's number of a simulated node, from 0


class FlippedSite(Site):
    """A site whose every known label says the opposite, in what it learns and in what it reports."""

    __slots__ = ()

    def cache(self) -> Cache:
        """The site's data with the labels turned round."""
        whole = Site.cache(self)
        table = whole.manifest.copy()
        for label in LABELS:
            table[label.value] = 1 - table[label.value]
        return replace(whole, manifest=table)


def flipped(site: Site) -> FlippedSite:
    """The same site with its labels turned round."""
    return FlippedSite(**{item.name: getattr(site, item.name) for item in fields(Site)})


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedNodes:
    """Which site a simulated node is: what a client app asks.

    Attributes:
        run: folder of the run.
        flipped: numbers of the sites whose labels are turned round.
    """

    run: Path
    flipped: frozenset[int] = frozenset()

    def __call__(self, context: Context) -> Site:
        """The site of the node that a message came to."""
        number = site_number(context)
        site = read_site(site_folder(self.run, number) / "site.toml")
        return flipped(site) if number in self.flipped else site


@dataclass(frozen=True, slots=True, kw_only=True)
class ScaledClient:
    """A client app whose updates are made longer on their way out, where a site's own limits no longer see them.

    Attributes:
        app: the honest one.
        sites: numbers of the sites that do so.
        scale: how many times longer.
    """

    app: Callable[[Message, Context], Message]
    sites: frozenset[int]
    scale: float = SCALE

    def __call__(self, message: Message, context: Context) -> Message:
        """The honest answer, its update scaled where this node is one of the sites."""
        reply = self.app(message, context)
        if (
            message.metadata.message_type != MessageType.TRAIN
            or site_number(context) not in self.sites
            or not reply.has_content()
        ):
            return reply
        before, after = (unpack(either.content[ARRAYS]) for either in (message, reply))
        reply.content[ARRAYS] = pack({name: _scaled(array, before[name], self.scale) for name, array in after.items()})
        return reply


def site_number(context: Context) -> int:
    """The number of a simulated node's site, from 1."""
    return int(context.node_config[_PARTITION]) + 1


def _scaled(after: Any, before: Any, scale: float) -> Any:
    return np.asarray(before + np.float32(scale) * (after - before), dtype=np.float32)
