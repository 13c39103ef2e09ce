"""Progress without a terminal: a job's log shows how far it is, without growing long."""

import pytest

from hemoscope.cli.progress import progress_bar, progress_lines


def test_a_log_gets_a_line_a_minute_with_rate_and_time_left(capsys: pytest.CaptureFixture[str]) -> None:
    now = 0.0
    show = progress_lines(lambda: now)
    for second in range(0, 181, 10):
        now = float(second)
        show("split: training", 1000 + 2 * second, 15_000)
    assert capsys.readouterr().err.splitlines() == [
        "split: training 1,120 of 15,000, 2/s, 1 h 56 min left",
        "split: training 1,240 of 15,000, 2/s, 1 h 55 min left",
        "split: training 1,360 of 15,000, 2/s, 1 h 54 min left",
    ]


def test_each_stage_has_its_own_rate_and_a_stage_without_one_states_none(capsys: pytest.CaptureFixture[str]) -> None:
    now = 0.0
    show = progress_lines(lambda: now)
    show("headers", 0, 10)
    now = 60.0
    show("slices", 5, 100)
    now = 130.0
    show("slices", 40, 100)
    said = capsys.readouterr().err.splitlines()
    assert said == ["slices 5 of 100", "slices 40 of 100, 0.5/s, 2 min left"]


def test_what_is_soon_done_is_not_logged(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_bar() as show:
        show("slices", 1, 2)
        show("slices", 2, 2)
    assert capsys.readouterr().err == ""
