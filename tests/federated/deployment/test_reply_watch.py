"""A SuperNode is ended when nobody is left who could give the reply that it waits for, and not before."""

import logging
from pathlib import Path

import pytest

from hemoscope.federated.deployment.reply_watch import PATIENCE, ReplyWatch, working

RECEIVING, SENDING, SENT = "Receiving: train message (ID: 1)", "Sending: train message (ID: 2)", "Sent successfully"
NODE_ERROR = "Failed to receive message 1: no connection"


class Clock:
    """A clock that the test sets."""

    now = 0.0

    def __call__(self) -> float:
        """The time."""
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def watch(tmp_path: Path, clock: Clock) -> ReplyWatch:
    return ReplyWatch(tmp_path, clock)


def say(watch: ReplyWatch, text: str) -> None:
    assert watch.note(logging.LogRecord("flwr", logging.INFO, "", 0, text, None, None))


def in_vain_after_patience(watch: ReplyWatch, clock: Clock) -> bool:
    """Whether it gives up once its patience is over, and not at once."""
    assert not watch.in_vain()
    clock.now += PATIENCE + 1
    return watch.in_vain()


def test_a_message_that_no_application_takes_is_waited_for_so_long(watch: ReplyWatch, clock: Clock) -> None:
    say(watch, RECEIVING)
    clock.now += PATIENCE - 1
    assert not watch.in_vain()
    clock.now += 2
    assert watch.in_vain()


def test_an_application_may_work_as_long_as_it_likes(watch: ReplyWatch, clock: Clock, tmp_path: Path) -> None:
    say(watch, RECEIVING)
    with working(tmp_path):
        assert not in_vain_after_patience(watch, clock)
    assert in_vain_after_patience(watch, clock)


def test_a_reply_that_is_whole_may_take_long_to_send(watch: ReplyWatch, clock: Clock, tmp_path: Path) -> None:
    say(watch, RECEIVING)
    with working(tmp_path) as say_in_order:
        say(watch, SENDING)
        say_in_order()
    assert not in_vain_after_patience(watch, clock)


def test_a_reply_whose_application_died_while_it_sent_it_does_not_come(
    watch: ReplyWatch, clock: Clock, tmp_path: Path
) -> None:
    say(watch, RECEIVING)
    with working(tmp_path):
        say(watch, SENDING)
    assert in_vain_after_patience(watch, clock)


def test_an_application_that_ended_in_order_without_a_reply_gives_none(
    watch: ReplyWatch, clock: Clock, tmp_path: Path
) -> None:
    say(watch, RECEIVING)
    with working(tmp_path) as say_in_order:
        say_in_order()
    assert in_vain_after_patience(watch, clock)


def test_the_end_of_an_earlier_application_does_not_count(watch: ReplyWatch, clock: Clock, tmp_path: Path) -> None:
    with working(tmp_path) as say_in_order:
        say_in_order()
    with working(tmp_path):
        say(watch, RECEIVING)
        say(watch, SENDING)
    assert in_vain_after_patience(watch, clock)


@pytest.mark.parametrize("last", [SENT, NODE_ERROR])
def test_a_supernode_that_waits_for_no_reply_is_left_alone(watch: ReplyWatch, clock: Clock, last: str) -> None:
    assert not in_vain_after_patience(watch, clock)
    say(watch, RECEIVING)
    say(watch, last)
    assert not in_vain_after_patience(watch, clock)
