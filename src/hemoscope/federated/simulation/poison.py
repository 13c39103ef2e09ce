"""Sites that work against the others, for demonstrations and tests: labels turned round, or an update made 100x longer.

Nothing here is reachable from a real deployment: ``hemoscope federated simulate --poison site-2=flip`` alone uses it.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from flwr.app import Context, Message, MessageType

from hemoscope.data.cache import Cache
from hemoscope.federated.exchange.messages import ARRAYS, pack, unpack
from hemoscope.federated.settings.site import Site
from hemoscope.labels import LABELS

SCALE = 100.0


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
class ScaledClient:
    """A client app whose updates are made longer on their way out, where a site's own limits no longer see them.

    Attributes:
        app: the honest one.
        scaled: whether a node does so.
        scale: how many times longer.
    """

    app: Callable[[Message, Context], Message]
    scaled: Callable[[Context], bool]
    scale: float = SCALE

    def __call__(self, message: Message, context: Context) -> Message:
        """The honest answer, its update scaled where this node does so."""
        reply = self.app(message, context)
        if message.metadata.message_type != MessageType.TRAIN or not reply.has_content() or not self.scaled(context):
            return reply
        before, after = (unpack(either.content[ARRAYS]) for either in (message, reply))
        reply.content[ARRAYS] = pack({name: _scaled(array, before[name], self.scale) for name, array in after.items()})
        return reply


def _scaled(after: Any, before: Any, scale: float) -> Any:
    return np.asarray(before + np.float32(scale) * (after - before), dtype=np.float32)
