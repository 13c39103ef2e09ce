"""A grid that shows Flower's strategies the nodes that we chose, and nobody else.

Flower's own sampling draws from Python's global random numbers and waits for ever where nodes are missing.
"""

from collections.abc import Iterable
from typing import Any

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid


class ChosenNodes(Grid):
    """Everything but the list of nodes is the grid's own."""

    def __init__(self, grid: Grid, nodes: Iterable[int]) -> None:
        """Show these nodes of a grid."""
        self._grid = grid
        self._nodes = tuple(nodes)

    def get_node_ids(self) -> Iterable[int]:
        """The chosen nodes, in the order they were given."""
        return self._nodes

    def set_run(self, run: Any) -> None:
        """See Flower."""
        self._grid.set_run(run)

    @property
    def run(self) -> Any:
        """See Flower."""
        return self._grid.run

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        """See Flower."""
        return self._grid.create_message(content, message_type, dst_node_id, group_id, ttl)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """See Flower."""
        return self._grid.push_messages(messages)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """See Flower."""
        return self._grid.pull_messages(message_ids)

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """See Flower."""
        return self._grid.send_and_receive(messages, timeout=timeout)
