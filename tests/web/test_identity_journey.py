"""A patient's whole visit at a running server, with errors: no log line, table, URL or error names the patient.

The values that identify are markers that occur nowhere else, so that searching for them is a proof.
"""

import json
import os
import signal
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from zipfile import ZipFile

import httpx
import pydicom
import pypdf
import pytest
import sqlalchemy as sa

from hemoscope.store.database import database_url

from .test_server import CSRF, TIMEOUT_S, Server, children_of, until

NAME, IDENTIFIER, BIRTH, ACCESSION = "QUILLFEATHER^ZENOBIA", "MRN7731942", "19310417", "ACC4456001"
PHYSICIAN, FILE_NAME = "OSTERHAGEN^TILDA", "quillfeather_scan_of_april"
MARKERS = ("quillfeather", "zenobia", "mrn7731942", "19310417", "1931-04-17", "acc4456001", "osterhagen", "tilda")
NUMBER = "5.0000000001"  # as long as the text that takes its place
# Where --show-identity keeps name and ID, as its documentation says.
SHOWN = {("studies", "patient_name"), ("studies", "patient_id"), ("studies", "search_text")}


# Imported by every Python process: once its log is set up, libraries misbehave in each way that they have.
MISBEHAVING = f"""
import asyncio, logging, threading, warnings
import hemoscope.logs
set_up = hemoscope.logs.configure_logs
def fail():
    raise RuntimeError("{NAME} {IDENTIFIER}")
async def forget():
    asyncio.get_running_loop().call_soon(fail)
    await asyncio.sleep(0)
def configure_logs(*form, **options):
    set_up(*form, **options)
    threading.Thread(target=fail).start()
    asyncio.run(forget())
    warnings.warn("{NAME} was born on {BIRTH}")
    logging.getLogger("a.library").error("no number: %s", "{ACCESSION}")
hemoscope.logs.configure_logs = configure_logs
"""


def marked(slices: tuple[bytes, ...]) -> list[bytes]:
    """The slices of a phantom whose headers name a patient, some in values that the standard does not allow."""
    files = []
    for content in slices:
        dataset = pydicom.dcmread(BytesIO(content))
        dataset.PatientName, dataset.PatientID, dataset.PatientBirthDate = NAME, IDENTIFIER, BIRTH
        dataset.AccessionNumber, dataset.ReferringPhysicianName = ACCESSION, PHYSICIAN
        with pydicom.config.disable_value_validation():
            dataset.StudyTime = f"at night, {NAME}"
            dataset.PatientAge = IDENTIFIER
            dataset.SeriesDescription = f"AXIAL {ACCESSION} {NAME} " * 4
            dataset.SliceThickness = NUMBER
        out = BytesIO()
        dataset.save_as(out)
        files.append(out.getvalue().replace(NUMBER.encode(), f"{IDENTIFIER}mm".encode()))
    return files


def zipped(files: list[bytes]) -> bytes:
    buffer = BytesIO()
    with ZipFile(buffer, "w") as archive:
        for number, content in enumerate(files):
            archive.writestr(f"{FILE_NAME}/{NAME}-{number}.dcm", content)
    return buffer.getvalue()


class Visit:
    """What a browser does, and every answer with its headers and address."""

    def __init__(self, client: httpx.Client) -> None:
        self.client = client
        self.answers: list[tuple[str, str]] = []

    def ask(self, method: str, path: str, **options: object) -> httpx.Response:
        answer = self.client.request(method, path, **options)  # type: ignore[arg-type]
        text = answer.content.decode("latin-1") + str(answer.headers.raw)
        if answer.headers.get("content-type") == "application/pdf":
            text += "".join(page.extract_text() for page in pypdf.PdfReader(BytesIO(answer.content)).pages)
        self.answers.append((f"{method} {path}", text))
        return answer

    def upload(self, content: bytes) -> str:
        """Upload under the patient's name, wait for the end, and return the study's path."""
        answer = self.ask("POST", "/api/v1/uploads", files=[("files", (f"{FILE_NAME}.zip", content))])
        path = f"/api/v1/studies/{answer.json()['study']['study_id']}"
        until(lambda: self.client.get(path).json()["state"] in ("done", "failed"))
        return path

    def look(self, study: str) -> None:
        """Read a study in every way, correct it, and export."""
        page = study.removeprefix("/api/v1")
        for path in (
            study,
            f"{study}/findings",
            f"{study}/report.html",
            f"{study}/report.pdf",
            page,
            f"{study}/feedback",
        ):
            self.ask("GET", path)
        for path in ("", "s", "/site", "/studies", "/audit", "/feedback.csv", "/model"):
            self.ask("GET", f"/api/v1{path}")
        self.ask("GET", f"{study}/slices/0/pixels")
        self.ask("GET", f"{study}/slices/0/heatmap/any")
        self.ask("POST", f"{study}/feedback", json={"label": "any", "verdict": "agree", "present": True})
        for path in ("/health", "/ready", "/metrics", "/"):
            self.ask("GET", path)

    def err(self, study: str) -> None:
        """Make every kind of mistake, with the patient's name in it."""
        self.ask("GET", f"/api/v1/studies/{NAME}")
        self.ask("GET", f"/{FILE_NAME}/{IDENTIFIER}?{ACCESSION}")
        self.ask("GET", f"/api/v1/studies?search={NAME}&limit={IDENTIFIER}")
        self.ask("POST", f"{study}/feedback", json={"label": NAME, "verdict": IDENTIFIER, NAME: BIRTH})
        self.ask("POST", "/api/v1/uploads", content=NAME.encode(), headers={"Content-Type": f"multipart/{NAME}"})
        self.ask("POST", "/api/v1/uploads", files=[(NAME, (FILE_NAME, b"x"))])
        self.ask("POST", "/api/v1/login", json={"user": NAME, "password": IDENTIFIER})
        self.ask(NAME.partition("^")[0], "/api/v1/site")
        self.ask("GET", "/", headers={"Host": f"{FILE_NAME}.example"})
        self.ask("GET", "/api/v1/site", headers={"X-Forwarded-For": NAME, "User-Agent": NAME, "Cookie": f"a={NAME}"})


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Server]]:
    """Servers to end, among libraries that misbehave."""
    (tmp_path / "libraries").mkdir()
    (tmp_path / "libraries" / "sitecustomize.py").write_text(MISBEHAVING)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "libraries"), prepend=os.pathsep)
    running: list[Server] = []
    yield running
    for server in running:
        if server.process.poll() is None:
            server.process.kill()
        server.process.wait()
        server.process.stdout.close()


def columns(url: str) -> dict[tuple[str, str], str]:
    """Everything in the database, by table and column."""
    engine = sa.create_engine(database_url(url))
    tables = sa.MetaData()
    tables.reflect(engine)
    with engine.connect() as connection:
        found = {
            (table.name, column.name): str(connection.execute(sa.select(column)).scalars().all())
            for table in tables.sorted_tables
            for column in table.columns
        }
    engine.dispose()
    return found


def named(text: str) -> list[str]:
    return [marker for marker in MARKERS if marker in text.lower()]


def failing_processes(log: Path) -> set[int]:
    """The processes that the log's whole lines name beside the error of ``MISBEHAVING``."""
    lines = log.read_text().rpartition("\n")[0].splitlines()
    events = [json.loads(line) for line in lines]
    return {event["process"] for event in events if event.get("error") == ["RuntimeError"]}


@pytest.mark.parametrize("shown", [False, True])
def test_nothing_that_a_server_writes_names_the_patient(
    start: list[Server], slices: tuple[bytes, ...], tmp_path: Path, tiny_bundle: Path, database: str, shown: bool
) -> None:
    where = ("--storage", str(tmp_path / "s"), "--model", str(tiny_bundle), "--database", database)
    start.append(Server(tmp_path, *where, "--log-format", "json", *(["--show-identity"] if shown else [])))
    server = start[0]
    files = marked(slices)
    with httpx.Client(base_url=server.url, headers=CSRF, timeout=TIMEOUT_S) as client:
        visit = Visit(client)
        until(lambda: client.get("/ready").status_code == 200)
        study = visit.upload(zipped(files))
        assert client.get(study).json()["state"] == "done"
        damaged = [visit.upload(content) for content in (files[0][:-999], zipped([files[0][:300]]), NAME.encode() * 99)]
        visit.look(study)
        for one in damaged:
            visit.ask("GET", one)
        os.kill(children_of(server.process.pid)[0], signal.SIGKILL)
        visit.err(study)
        kept = columns(database)
        visit.ask("DELETE", study)
        visit.ask("GET", study)
    until(lambda: len(failing_processes(server.log)) == 3)  # the worker after it may be starting still
    assert server.stop() == 0
    shown_by = ("/api/v1/studies", "report") if shown else ()
    for address, text in visit.answers:
        if not any(part in address for part in shown_by):
            assert named(text) == [], address
    lines = server.log.read_text().splitlines()
    assert [line for line in lines if named(line)] == []
    uids = {str(pydicom.dcmread(BytesIO(one)).SOPInstanceUID) for one in files}
    assert [line for line in lines if any(uid in line for uid in uids)] == []
    events = [json.loads(line) for line in lines]
    assert {"hemoscope.access", "hemoscope.store"} <= {event["logger"] for event in events}
    assert len(failing_processes(server.log)) == 3, "server, worker, and the worker after it"
    assert {event["route"] for event in events if "route" in event} >= {"/api/v1/studies/{study_id}", "unmatched"}
    holding = {column for column, text in kept.items() if named(text)}
    assert holding == (SHOWN if shown else set())
    assert {column for column, text in columns(database).items() if named(text)} <= holding - {("audit", "detail")}
