"""The SuperLink's database: transactions wait for each other, and a request that could not wait is repeated."""

import asyncio
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

pytest.importorskip("flwr", reason="needs the extra: make setup-federated")

from flwr.supercore.protobuf.constants import PROTOBUF_MEDIA_TYPE
from sqlalchemy.exc import OperationalError

from hemoscope.federated.deployment.database import answer_unavailable
from hemoscope.federated.deployment.superlink import lifespan_config
from hemoscope.federated.flower_internals import SuperLinkLifespan, create_app

# Two transactions that read before they write, as Flower's do; the second begins while the first is open.
TWO_TRANSACTIONS = """
import sys, threading
from sqlalchemy import create_engine, text
from hemoscope.federated.deployment.database import wait_for_locks

if sys.argv[2] == "wait":
    wait_for_locks()
engine = create_engine(f"sqlite:///{sys.argv[1]}", connect_args={"check_same_thread": False, "timeout": 20})
with engine.begin() as connection:
    connection.execute(text("PRAGMA journal_mode = WAL"))
with engine.begin() as connection:
    connection.execute(text("CREATE TABLE counts (number INTEGER)"))
    connection.execute(text("INSERT INTO counts VALUES (0)"))
read = threading.Event()

def add() -> None:
    read.wait()
    with engine.begin() as connection:
        connection.execute(text("UPDATE counts SET number = number + 1"))

other = threading.Thread(target=add)
other.start()
with engine.connect() as connection:
    connection.execute(text("BEGIN" if sys.argv[2] == "refuse" else "SELECT 1"))
    connection.execute(text("SELECT number FROM counts")).all()
    read.set()
    if sys.argv[2] == "refuse":
        other.join()  # it gets the lock, since this transaction has only read
    connection.execute(text("UPDATE counts SET number = number + 1"))
    connection.commit()
other.join()
with engine.connect() as connection:
    print(connection.execute(text("SELECT number FROM counts")).scalar())
"""


@pytest.mark.parametrize(("how", "said"), [("wait", "2\n"), ("refuse", "database is locked")])
def test_transactions_that_read_first_wait_for_each_other_where_sqlite_alone_refuses_them(
    tmp_path: Path, how: str, said: str
) -> None:
    command = [sys.executable, "-P", "-c", TWO_TRANSACTIONS, str(tmp_path / "counts.db"), how]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert said in done.stdout + done.stderr


def test_a_request_whose_transaction_failed_gets_503_which_flowers_clients_repeat(
    deployment: Callable[..., Any],
) -> None:
    made = deployment(sites=("riverside",))

    class BusyDatabase:
        def state(self) -> None:
            raise OperationalError("SELECT 1", {}, Exception("database is locked"))

    config = replace(lifespan_config(made.keys / "server", made.folder, port=9092), database=":memory:")
    application = create_app(config, SuperLinkLifespan)
    application.add_exception_handler(OperationalError, answer_unavailable)
    application.state.linkstate_factory = BusyDatabase()
    assert asyncio.run(status_of_a_request(application)) == 503


async def status_of_a_request(application: Any) -> int:
    transport = httpx.ASGITransport(app=application, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="https://localhost") as client:
        answer = await client.post("/v1/control/list-runs", headers={"content-type": PROTOBUF_MEDIA_TYPE})
    return int(answer.status_code)
