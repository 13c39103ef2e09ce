"""Which site a simulated node is: for the client, from what Flower says of the node; for the server, by asking it.

Flower gives simulated nodes new ids in every run, and numbers them from 0 for themselves alone. So the server asks each
node once for the number of its site, and ``site 2`` is the same one before and after a resume, and in ``RUN/sites``.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from flwr.app import ConfigRecord, Context, Message, MessageType, RecordDict
from flwr.serverapp import Grid

from hemoscope.errors import FederationError
from hemoscope.federated.settings.site import Site, read_site
from hemoscope.federated.simulation.poison import flipped
from hemoscope.federated.simulation.simulated_sites import site_folder

_PARTITION = "partition-id"  # Flower's number of a simulated node, from 0
_RECORD, _NUMBER = "site", "number"
_SECONDS = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedSites:
    """The sites of a run by node: what a client app asks.

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
class SimulatedClient:
    """A client app that also says which site it is."""

    app: Callable[[Message, Context], Message]

    def __call__(self, message: Message, context: Context) -> Message:
        """ClientUpdate a query with the site's number, and leave all else to the app."""
        if message.metadata.message_type != MessageType.QUERY:
            return self.app(message, context)
        number = ConfigRecord({_NUMBER: site_number(context)})
        return Message(RecordDict({_RECORD: number}), reply_to=message)


@dataclass(frozen=True, slots=True)
class NumberedIn:
    """Whether a node is one of some sites, by their numbers."""

    numbers: frozenset[int]

    def __call__(self, context: Context) -> bool:
        """Whether this node is one of them."""
        return site_number(context) in self.numbers


def site_number(context: Context) -> int:
    """The number of a simulated node's site, from 1."""
    return int(context.node_config[_PARTITION]) + 1


def ask_numbers(grid: Grid) -> dict[str, int]:
    """The number of each node's site by the node's id, as ``RoundState.sites`` has them.

    Raises:
        FederationError: a node did not say.
    """
    nodes = sorted(grid.get_node_ids())
    question = RecordDict()
    questions = [Message(question, dst_node_id=node, message_type=MessageType.QUERY) for node in nodes]
    replies = [reply for reply in grid.send_and_receive(questions, timeout=_SECONDS) if reply.has_content()]
    if len(replies) != len(nodes):
        msg = f"{len(replies)} of {len(nodes)} simulated sites answered within {_SECONDS:g} s. See the log"
        raise FederationError(msg)
    return {str(reply.metadata.src_node_id): int(reply.content[_RECORD][_NUMBER]) for reply in replies}
