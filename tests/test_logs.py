"""The log of servers and workers says where something went wrong, and quotes nothing."""

import json
import logging
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from hemoscope.logs import OnceAMinute, message_of

MARKER = "WINTERBOTTOM"
SETUP = """
import asyncio, gc, logging, os, sys, threading, warnings
from hemoscope.logs import configure_logs, own_stream
MARKER = "WINTERBOTTOM"
def fail():
    try:
        int(MARKER)
    except ValueError as error:
        raise RuntimeError(MARKER) from error
"""
Run = Callable[[str], str]


@pytest.fixture(params=["text", "json"])
def logged(request: pytest.FixtureRequest) -> Run:
    """``logged(code)``: what a process with this format writes; every line is a JSON object if it is to be."""

    def run(code: str) -> str:
        program = f"{SETUP}configure_logs({request.param!r})\n{code}"
        done = subprocess.run(
            [sys.executable, "-P", "-c", program], capture_output=True, text=True, timeout=60, check=False
        )
        if request.param == "json":
            for line in done.stderr.splitlines():
                assert {"time", "level", "logger", "process", "message"} <= json.loads(line).keys()
        assert done.stdout == ""
        return done.stderr

    return run


@pytest.mark.parametrize(
    "code",
    [
        "fail()",
        "threading.Thread(target=fail, name='a-loop').start()",
        "async def main():\n    task = asyncio.create_task(late())\n"
        "    while not task.done():\n        await asyncio.sleep(0)\n"
        "    del task\n    gc.collect()\nasync def late():\n    fail()\nasyncio.run(main())",
        "async def main():\n    asyncio.get_running_loop().call_soon(lambda name: fail(), MARKER)\n"
        "    await asyncio.sleep(0)\nasyncio.run(main())",
        "class Closing:\n    def __del__(self):\n        fail()\nCloses = Closing()\ndel Closes",
        "try:\n    fail()\nexcept RuntimeError:\n    logging.getLogger('uvicorn.error').exception(MARKER)",
        "try:\n    fail()\nexcept RuntimeError:\n    logging.getLogger('hemoscope.store').exception('caught')",
    ],
    ids=["main", "thread", "task", "callback", "finalizer", "library", "ours"],
)
def test_an_error_is_logged_by_type_and_place_wherever_it_ends(logged: Run, code: str) -> None:
    log = logged(code)
    assert MARKER not in log
    assert "Traceback" not in log
    assert len(log.splitlines()) == 1
    assert log.index("RuntimeError") < log.index("ValueError") < log.index("fail")


@pytest.mark.parametrize(
    "code",
    [
        "warnings.warn(f'invalid value {MARKER}')",
        "logging.getLogger('pg8000').error(f'{MARKER}')",
        "logging.getLogger('asyncio').error('%s', MARKER, stack_info=True)",
    ],
)
def test_what_libraries_say_is_logged_by_its_place_alone(logged: Run, code: str) -> None:
    log = logged(code)
    assert MARKER not in log
    assert "<string>:" in log


@pytest.mark.parametrize("name", ["pydicom", "pynetdicom.dul", "python_multipart.multipart"])
def test_nobody_fills_the_log_with_what_is_wrong_in_a_file(logged: Run, name: str) -> None:
    assert logged(f"logging.getLogger({name!r}).error('invalid value %s', MARKER)") == ""


def test_what_a_library_logs_again_and_again_is_one_line_a_minute(logged: Run) -> None:
    written = logged("for _ in range(500): logging.getLogger('uvicorn.error').warning('Unsupported upgrade request.')")
    assert written.count("uvicorn") == 1


def test_the_next_line_of_a_library_says_how_many_were_left_out() -> None:
    moments = iter([0.0, 1.0, 2.0, 61.0, 62.0])
    once, own = OnceAMinute(clock=lambda: next(moments)), logging.getLogger("hemoscope.web")
    place = ("uvicorn.error", logging.WARNING, "h11_impl.py", 159, "x", (), None, "warned")
    records = [logging.LogRecord(*place) for _ in range(5)]
    assert [once.filter(record) for record in records] == [True, False, False, True, False]
    assert message_of(records[3]) == "logged at h11_impl.py:159 warned; 2 more such lines since the last one"
    assert once.filter(own.makeRecord(own.name, logging.INFO, "a.py", 1, "all of our own", (), None))


def test_an_own_message_that_cannot_be_composed_prints_none_of_its_parts(logged: Run) -> None:
    assert MARKER not in logged("logging.getLogger('hemoscope').warning('%d', MARKER)")


@pytest.mark.parametrize("control", ["\\n", "\\r", "\\x1b", "\\x08", "\\x9b", "\\u2028", "\\u202e"])
def test_no_message_forges_a_line_or_commands_a_terminal(logged: Run, control: str) -> None:
    log = logged(f"logging.getLogger('hemoscope.store').warning('%d folders{control}moved', 3)")
    assert log.removesuffix("\n").isprintable()
    assert log.index("3 folders") < log.index("moved")


def test_an_event_has_its_parts_as_fields_in_json() -> None:
    code = "configure_logs('json')\nlogging.getLogger('hemoscope.access').info('x', extra={'fields': {'status': 200}})"
    done = subprocess.run([sys.executable, "-P", "-c", SETUP + code], capture_output=True, text=True, check=True)
    assert json.loads(done.stderr)["status"] == 200


def test_what_native_code_prints_is_dropped_and_the_log_is_not() -> None:
    code = (
        "configure_logs(stream=own_stream())\nos.write(1, MARKER.encode())\nos.write(2, MARKER.encode())\n"
        "print(MARKER, flush=True)\nlogging.getLogger('hemoscope').warning('kept')"
    )
    done = subprocess.run([sys.executable, "-P", "-c", SETUP + code], capture_output=True, text=True, check=True)
    assert done.stdout == ""
    assert done.stderr.endswith("WARNING hemoscope: kept\n")
    assert MARKER not in done.stderr


@pytest.mark.parametrize("place", ["logging", "hemoscope.logs"])
def test_an_error_while_python_clears_its_modules_is_logged_all_the_same(logged: Run, place: str) -> None:
    # CPython clears a module that is still in use by setting its names to None; then it deletes this object.
    code = (
        f"import {place}\nclass Closing:\n    def __del__(self):\n        fail()\n"
        f"{place}.aaa = Closing()\nsys.kept = {place}"
    )
    log = logged(code)
    assert "Traceback" not in log
    assert MARKER not in log
    assert len(log.splitlines()) == 1
    assert log.index("an error that nobody can catch") < log.index("RuntimeError at <string>:")


@pytest.mark.parametrize("causes", ["raise error from error", "error.__context__ = ValueError(MARKER)"])
def test_an_error_that_is_its_own_cause_is_one_line(logged: Run, causes: str) -> None:
    code = (
        "import resource; resource.setrlimit(resource.RLIMIT_DATA, (1 << 30, 1 << 30))\n"
        f"error = RuntimeError(MARKER)\ntry:\n    {causes}\n    error.__context__.__context__ = error\n"
        "    raise error\nexcept RuntimeError:\n    logging.getLogger('hemoscope').exception('x')"
    )
    log = logged(code)
    assert len(log.splitlines()) == 1
    assert log.index("RuntimeError") < log.index("<string>")


@pytest.mark.parametrize(
    "code",
    [
        "fail()",
        "threading.Thread(target=fail, name='a-loop').start()",
        "class Closing:\n    def __del__(self):\n        fail()\nCloses = Closing()\ndel Closes",
        "logging.getLogger('asyncio').error(MARKER)",
        "logging.getLogger('hemoscope').error('a line')",
    ],
    ids=["main", "thread", "finalizer", "library", "ours"],
)
@pytest.mark.parametrize("part", ["error_of", "_is_ours", "message_of"])
def test_a_log_that_fails_says_so_in_one_line_and_ends_no_work(logged: Run, code: str, part: str) -> None:
    lacking = (
        f"import hemoscope.logs\ndef lack(_record):\n    raise MemoryError(MARKER)\nhemoscope.logs.{part} = lack\n"
    )
    log = logged(lacking + code)
    assert MARKER not in log
    assert "Traceback" not in log
    assert len(log.splitlines()) == 1
    assert log.index("a line could not be written (MemoryError)") < log.index("Error at <string>:")
    assert ("RuntimeError" in log) == ("fail" in code)


def test_the_handler_of_a_library_prints_no_arguments(logged: Run) -> None:
    code = "log = logging.getLogger('library')\nlog.propagate = False\nlog.addHandler(logging.StreamHandler())\n"
    assert logged(f"{code}log.error('%d', MARKER)") == ""


def test_a_line_with_an_error_that_is_none_says_what_kept_it_away(logged: Run) -> None:
    log = logged("logging.getLogger('hemoscope').error('%d', MARKER, exc_info=True)")
    assert MARKER not in log
    assert "a line could not be written (TypeError): TypeError at" in log


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
@pytest.mark.parametrize("code", ["fail()", "logging.getLogger('asyncio').error(MARKER)"])
def test_a_log_on_a_full_disk_prints_nothing_elsewhere(logged: Run, code: str) -> None:
    assert logged(f"configure_logs(stream=open('/dev/full', 'w', buffering=1))\n{code}\nos._exit(0)") == ""
