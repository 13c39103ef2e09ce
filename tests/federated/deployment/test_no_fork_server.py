"""A site without a fork server says so once, and again after there was one."""

import errno
import socket
import sys
import threading
from pathlib import Path

import pytest

from hemoscope.federated.deployment.fork_client import ADDRESS, run_forked, short_path

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="a federation is deployed on Linux")


def test_that_there_is_none_is_said_once_until_one_listens_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for said in (1, 0):
        assert run_forked(tmp_path, ["flwr-clientapp"]) is None
        assert capsys.readouterr().err.count("no fork server answers (No such file or directory)") == said
    assert run_with_a_server(tmp_path) == 3
    (tmp_path / ADDRESS).unlink()
    assert run_forked(tmp_path, ["flwr-clientapp"]) is None
    assert "no fork server answers" in capsys.readouterr().err


def test_a_folder_that_cannot_be_written_to_ends_no_application(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "touch", refuse)
    monkeypatch.setattr(Path, "unlink", refuse)
    assert run_forked(tmp_path, ["flwr-clientapp"]) is None
    assert "no fork server answers" in capsys.readouterr().err
    assert run_with_a_server(tmp_path) == 3


def run_with_a_server(folder: Path) -> int | None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        with short_path(folder) as address:
            listener.bind(address)
        listener.listen()
        thread = threading.Thread(target=answer, args=(listener,))
        thread.start()
        try:
            return run_forked(folder, ["flwr-clientapp"])
        finally:
            thread.join()


def answer(listener: socket.socket) -> None:
    connection, _ = listener.accept()
    with connection:
        _, outputs, _, _ = socket.recv_fds(connection, 1 << 16, 2)
        for output in outputs:
            socket.close(output)
        connection.send(b"3")
