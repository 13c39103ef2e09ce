"""The grid that Flower's strategies see: our choice of nodes, and otherwise the grid itself."""

from typing import Any

import pytest

pytest.importorskip("flwr", reason="needs the extra: make setup-federated")

from hemoscope.federated.server.chosen_nodes import ChosenNodes


class Recorder:
    """A grid that answers every call with what it was asked."""

    run = "the run"

    def __getattr__(self, name: str) -> Any:
        return lambda *args, **kwargs: (name, args, kwargs)


def test_the_chosen_nodes_alone_are_seen_in_their_order() -> None:
    grid = ChosenNodes(Recorder(), [7, 3])  # type: ignore[arg-type]
    assert list(grid.get_node_ids()) == [7, 3]
    assert [info.node_id for info in grid.get_nodes()] == [7, 3]


def test_everything_else_is_asked_of_the_grid_itself() -> None:
    grid: Any = ChosenNodes(Recorder(), [])  # type: ignore[arg-type]
    assert grid.run == "the run"
    assert grid.push_messages("m") == ("push_messages", ("m",), {})
    assert grid.pull_messages("i") == ("pull_messages", ("i",), {})
    assert grid.send_and_receive("m", timeout=2) == ("send_and_receive", ("m",), {"timeout": 2})
    assert grid.create_message("c", "train", 7, "g", 5.0) == ("create_message", ("c", "train", 7, "g", 5.0), {})
    assert grid.set_run("r") is None
