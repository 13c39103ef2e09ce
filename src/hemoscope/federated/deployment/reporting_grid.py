"""A grid that says whose replies are awaited."""

import time
from collections.abc import Iterable

from flwr.app import Message
from flwr.serverapp import Grid

from hemoscope.federated.deployment.run_progress import ProgressFile
from hemoscope.federated.server.chosen_nodes import ChosenNodes

POLL = 0.5  # seconds


class ReportingGrid(ChosenNodes):
    """Another grid, whose nodes are all shown."""

    def __init__(self, grid: Grid, progress: ProgressFile) -> None:
        """Report to this file."""
        super().__init__(grid, ())
        self._progress = progress

    def get_node_ids(self) -> Iterable[int]:
        """See Flower."""
        return self._grid.get_node_ids()

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """As Flower's grid does; a message that the server does not take is not waited for."""
        sent = list(messages)
        nodes = [message.metadata.dst_node_id for message in sent]
        ids = list(self._grid.push_messages(sent))
        waiting = {found: node for found, node in zip(ids, nodes, strict=False) if found is not None}
        self._progress.ask(waiting.values())
        end = None if timeout is None else time.monotonic() + timeout
        replies: list[Message] = []
        try:
            while waiting and (end is None or time.monotonic() < end):
                found = list(self._grid.pull_messages(waiting))
                replies += found
                self._progress.leave(
                    node for reply in found if (node := waiting.pop(reply.metadata.reply_to_message_id, None))
                )
                if waiting:
                    time.sleep(POLL)
        finally:
            self._progress.leave(waiting.values())
        return replies
