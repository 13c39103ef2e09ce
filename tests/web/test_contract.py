"""The OpenAPI document against the server: whatever is sent, the answer is one that it describes, and never a 5xx.

schemathesis makes the requests. Half of them name a study that is there, so that more than the refusals is tried.
"""

from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from fastapi import FastAPI
from hypothesis import HealthCheck, given, seed, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)

from hemoscope.inference.bundle import load_bundle
from hemoscope.store.settings import Settings
from hemoscope.store.store import open_store
from hemoscope.web.app import create_app

CHECKS = (
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    unsupported_method,
)
QUIET = [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.function_scoped_fixture]


@pytest.fixture(scope="module")
def application(tmp_path_factory: pytest.TempPathFactory, predictor: Any, archive: bytes) -> Iterator[FastAPI]:
    yield from application_in(tmp_path_factory.mktemp("contract"), predictor, archive)


def application_in(folder: Path, predictor: Any, archive: bytes) -> Iterator[FastAPI]:
    """A room with one study that is done and one that waits; event streams end at once."""
    from hemoscope.store.reading import UploadReader

    settings = Settings(
        database=f"sqlite:///{folder / 'db.sqlite3'}",
        storage=folder / "storage",
        lease_s=86400.0,
        requests_per_minute=10**7,
    )
    store = open_store(settings)
    app = create_app(store, settings, model_card={**load_bundle(None).card.to_json(), "sha256": "0" * 64})
    app.state.app_state.closing.set()
    for state in ("done", "queued"):
        with store.begin_upload() as upload:
            upload.add_file(BytesIO(archive))
            app.state.study_id = store.accept(upload, submitted_by="local").study_id
        if state == "done":
            job = store.jobs.lease("w" * 32)
            UploadReader(store, predictor, keep_identity=False, deidentify=False).read(job)
            app.state.done = app.state.study_id
    store.jobs.join("w" * 32, host="here", pid=1)
    yield app
    store.close()


@pytest.fixture(scope="module")
def document(application: FastAPI) -> Any:
    return document_of(application)


def document_of(application: FastAPI) -> Any:
    """The application's OpenAPI document; about half of the requests name a study that is done."""
    loaded = schemathesis.openapi.from_asgi("/openapi.json", application, headers={"Host": "localhost"})

    @loaded.hook
    def map_path_parameters(_context: Any, path_parameters: dict[str, Any] | None) -> dict[str, Any] | None:
        if path_parameters and "study_id" in path_parameters and sum(map(ord, str(path_parameters))) % 2:
            return path_parameters | {"study_id": application.state.done, "index": 1}
        return path_parameters

    return loaded


def hold_to_the_document(
    document: Any, examples: int, *, leave_out: frozenset[str] = frozenset(), random_seed: int | None = None
) -> int:
    """Send requests to every route as our own page does; the answers must be those that the document describes.

    Returns the number of requests. They are the same each time, or those that ``random_seed`` chooses.
    """
    sent = 0
    fixed = random_seed is None
    for found in document.get_all_operations():
        operation = found.ok()
        if operation.method.upper() in leave_out:
            continue

        @seed(0 if random_seed is None else random_seed)
        @given(case=operation.as_strategy())
        @settings(max_examples=examples, deadline=None, suppress_health_check=QUIET, database=None, derandomize=fixed)
        def answer(case: schemathesis.Case) -> None:
            nonlocal sent
            sent += 1
            case.call_and_validate(headers={"X-CSRF-Token": "local", "Host": "localhost"}, checks=CHECKS)

        answer()
    return sent


def test_answers_are_those_that_the_document_describes(document: Any) -> None:
    hold_to_the_document(document, 3, leave_out=frozenset({"DELETE"}))


@pytest.mark.slow
def test_many_answers_are_those_that_the_document_describes(document: Any) -> None:
    hold_to_the_document(document, 200)
