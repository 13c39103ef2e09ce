"""A reading room without sockets: an application over a store in a temporary folder; its worker runs on demand."""

import os
import shutil
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import ZipFile

import pytest
import sqlalchemy as sa
from fastapi.testclient import TestClient

from hemoscope.inference.bundle import load_bundle
from hemoscope.labels import Hemorrhage
from hemoscope.store.database import database_url
from hemoscope.store.settings import Settings, UploadLimits
from hemoscope.store.store import Store, open_store
from hemoscope.store.users import hash_password
from hemoscope.store.values import Role
from hemoscope.testing.dicom_writer import Acquisition, write_series
from hemoscope.testing.phantom import make_phantom
from hemoscope.web.app import create_app
from hemoscope.web.credentials import Credentials, hash_token, load_credentials, write_entry

if TYPE_CHECKING:
    from hemoscope.inference.predictor import Predictor

# What no answer, header or log may ever hold.
NAME, IDENTIFIER, DATE, FILE_NAME = "WINTERBOTTOM^AGATHA", "MRN-5550199", "19870217", "WINTERBOTTOM_AGATHA_19870217"
PASSWORD = "a long enough password"
TOKENS = {"reader": "reader-token-0123456789abcdef", "admin": "admin-token-0123456789abcdef"}
CARD = {**load_bundle(None).card.to_json(), "name": "tiny", "version": "1.0", "sha256": "0" * 64}
SLICES, ROWS, COLUMNS = 4, 64, 64
NOBODY = Credentials()
CSRF = {"X-CSRF-Token": "local"}

Rooms = Callable[..., TestClient]


@pytest.fixture(scope="session")
def slices(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, ...]:
    """One study of a phantom whose headers name a patient, one file a slice."""
    folder = tmp_path_factory.mktemp("phantom")
    head = make_phantom(seed=5, shape=(SLICES, ROWS, COLUMNS), bleeds=frozenset({Hemorrhage.SUBDURAL}))
    acquisition = Acquisition(patient_name=NAME, patient_id=IDENTIFIER, date=DATE)
    return tuple(path.read_bytes() for path in write_series(head, folder, seed=5, acquisition=acquisition))


@pytest.fixture(scope="session")
def archive(slices: tuple[bytes, ...]) -> bytes:
    """The same study as a ZIP, its members named after the patient."""
    buffer = BytesIO()
    with ZipFile(buffer, "w") as archive:
        for number, content in enumerate(slices):
            archive.writestr(f"{FILE_NAME}/{number}.dcm", content)
    return buffer.getvalue()


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database without rows; making one takes a fifth of a second, copying it nothing."""
    folder = tmp_path_factory.mktemp("migrated")
    open_store(Settings(database=f"sqlite:///{folder / 'empty.sqlite3'}", storage=folder / "storage")).close()
    return folder / "empty.sqlite3"


@pytest.fixture
def database(tmp_path: Path, migrated: Path) -> str:
    """The URL of an empty database: SQLite, or the PostgreSQL that HEMOSCOPE_TEST_DATABASE names, emptied."""
    if url := os.environ.get("HEMOSCOPE_TEST_DATABASE"):
        engine = sa.create_engine(database_url(url), isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.execute(sa.text("DROP SCHEMA public CASCADE"))
            connection.execute(sa.text("CREATE SCHEMA public"))
        engine.dispose()
        return url
    shutil.copy(migrated, tmp_path / "reading-room.sqlite3")
    return f"sqlite:///{tmp_path / 'reading-room.sqlite3'}"


@pytest.fixture
def store(tmp_path: Path, database: str) -> Iterator[Store]:
    """An empty store."""
    opened = open_store(Settings(database=database, storage=tmp_path / "storage"))
    yield opened
    opened.close()


@pytest.fixture(scope="session")
def credentials(tmp_path_factory: pytest.TempPathFactory) -> Credentials:
    """A reader and an admin, each with the same password and a token of its own."""
    folder = tmp_path_factory.mktemp("credentials")
    users, tokens, hashed = folder / "users", folder / "tokens", hash_password(PASSWORD)
    for role in Role:
        write_entry(users, role.value, role, hashed)
        write_entry(tokens, f"{role.value}-program", role, hash_token(TOKENS[role.value]))
    return load_credentials(users=users, tokens=tokens)


@pytest.fixture
def make_room(store: Store) -> Iterator[Rooms]:
    """``make_room(credentials=..., ...)``: a client of an application over the store, with these settings."""
    clients = []

    def build(
        *,
        over: Store = store,
        base_url: str = "http://localhost",
        credentials: Credentials = NOBODY,
        **settings: Any,
    ) -> TestClient:
        files = {"users": Path("users")} if credentials else {}
        app = create_app(over, Settings(**files, **settings), model_card=CARD, credentials=credentials)
        client = TestClient(app, base_url=base_url, raise_server_exceptions=False, follow_redirects=False)
        clients.append(client.__enter__())
        return client

    yield build
    for client in clients:
        client.__exit__(None, None, None)


@pytest.fixture
def room(make_room: Rooms) -> TestClient:
    """The room on loopback without users: one local administrator, whose changing requests carry the header."""
    client = make_room()
    client.headers.update(CSRF)
    return client


@pytest.fixture
def guarded(make_room: Rooms, credentials: Credentials) -> TestClient:
    """A room with users; the client is nobody yet."""
    return make_room(credentials=credentials)


@pytest.fixture
def work(store: Store, predictor: "Predictor") -> Callable[..., None]:
    """``work()``: read everything in the queue, here and now."""

    def run(*, keep_identity: bool = False) -> None:
        from hemoscope.store.reading import UploadReader

        reader = UploadReader(store, predictor, keep_identity=keep_identity, deidentify=False)
        while (job := store.jobs.lease("test-worker")) is not None:
            reader.read(job)

    return run


@pytest.fixture
def study_id(room: TestClient, archive: bytes, work: Callable[..., None]) -> str:
    """A study that is done."""
    accepted = room.post("/api/v1/uploads", files=[("files", (f"{FILE_NAME}.zip", archive))])
    assert accepted.status_code == 202, accepted.text
    work()
    return str(accepted.json()["study"]["study_id"])


@pytest.fixture
def small_limits(tmp_path: Path) -> Iterator[Store]:
    """A store that takes little."""
    opened = open_store(Settings(database=f"sqlite:///{tmp_path / 'small.sqlite3'}", storage=tmp_path / "small"))
    opened.limits = UploadLimits(file_bytes=100_000, files=3, upload_bytes=150_000)
    yield opened
    opened.close()


def bearer(role: str) -> dict[str, str]:
    """Headers of a program with a token."""
    return {"Authorization": f"Bearer {TOKENS[role]}"}


def log_in(client: TestClient, role: str) -> dict[str, str]:
    """Log a browser in and return the header that its changing requests carry."""
    answer = client.post("/api/v1/login", json={"user": role, "password": PASSWORD})
    assert answer.status_code == 200, answer.text
    return {"X-CSRF-Token": answer.json()["csrf_token"]}
