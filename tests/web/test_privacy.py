"""No patient in what the server says: every answer, header and log line of a whole visit is searched."""

import logging
from collections.abc import Callable

import pytest
from fastapi.testclient import TestClient

from hemoscope.labels import LABELS
from hemoscope.store.store import Store

NAME, IDENTIFIER, DATE, FILE_NAME = "WINTERBOTTOM^AGATHA", "MRN-5550199", "19870217", "WINTERBOTTOM_AGATHA_19870217"
SECRETS = ("winterbottom", "agatha", IDENTIFIER.lower(), DATE, "1987-02-17")


def visit(room: TestClient, archive: bytes, work: Callable[..., None], **kept: bool) -> dict[str, str]:
    """Everything a page does with one study; returns every answer with its headers, by address."""
    answers = {}

    def keep(method: str, path: str, **options: object) -> None:
        answer = room.request(method, path, **options)  # type: ignore[arg-type]
        assert answer.status_code != 500
        answers[f"{method} {path}"] = answer.content.decode("latin-1") + str(answer.headers.raw)

    accepted = room.post("/api/v1/uploads", files=[("files", (f"{FILE_NAME}.zip", archive))])
    study = f"/api/v1/studies/{accepted.json()['study']['study_id']}"
    answers["upload"] = accepted.text + str(accepted.headers.raw)
    work(**kept)
    page = study.removeprefix("/api/v1")
    for path in (
        "/api/v1/studies",
        study,
        f"{study}/findings",
        f"{study}/report.html",
        f"{study}/report.pdf",
        page,
        "/",
    ):
        keep("GET", path)
    for index in range(4):
        keep("GET", f"{study}/slices/{index}/pixels")
        for label in LABELS:
            keep("GET", f"{study}/slices/{index}/heatmap/{label}")
    keep("POST", f"{study}/feedback", json={"label": "any", "verdict": "agree", "present": True, "note": ""})
    for path in ("/api/v1/feedback.csv", "/api/v1/audit", "/api/v1/site", "/api/v1/model", "/metrics", "/ready"):
        keep("GET", path)
    keep("GET", f"/api/v1/studies?search={NAME}")
    keep("GET", f"/api/v1/studies/{NAME}")
    keep("GET", f"/{FILE_NAME}")
    keep("POST", f"{study}/feedback", json={"label": NAME, "verdict": IDENTIFIER, NAME: DATE})
    keep("DELETE", study)
    return answers


def test_no_answer_header_or_log_line_names_the_patient(
    room: TestClient, archive: bytes, work: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        answers = visit(room, archive, work)
    for address, text in answers.items():
        assert not [secret for secret in SECRETS if secret in text.lower()], address
    # The test's own client logs what it asks for; the server must not.
    ours = "\n".join(record.getMessage() for record in caplog.records if not record.name.startswith("httpx"))
    assert "hemoscope.access" in {record.name for record in caplog.records}
    assert not [secret for secret in SECRETS if secret in ours.lower()]


def test_no_log_line_holds_a_uid_a_study_or_a_query(
    room: TestClient, archive: bytes, work: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        visit(room, archive, work)
    lines = [record.getMessage() for record in caplog.records if record.name == "hemoscope.access"]
    assert "GET /api/v1/studies/{study_id} 200" in "\n".join(lines)
    assert not [
        line for line in lines if "?" in line or "1.2." in line or any(len(word) == 32 for word in line.split("/"))
    ]


@pytest.mark.parametrize("shown", [True, False])
def test_identity_is_shown_only_if_the_site_turned_it_on(
    make_room: Callable[..., TestClient], archive: bytes, work: Callable[..., None], store: Store, shown: bool
) -> None:
    room = make_room(show_identity=shown)
    room.headers["X-CSRF-Token"] = "local"
    accepted = room.post("/api/v1/uploads", files=[("files", ("x", archive))])
    study_id = accepted.json()["study"]["study_id"]
    work(keep_identity=True)
    for answer in (room.get("/api/v1/studies"), room.get(f"/api/v1/studies/{study_id}")):
        assert (IDENTIFIER in answer.text) is shown
        assert ("1987-02-17" in answer.text) is shown
    found = room.get(f"/api/v1/studies?search={IDENTIFIER}").json()
    assert (found["total"] == 1) is shown, "what is not shown is not found either"
    report = room.get(f"/api/v1/studies/{study_id}/report.html").text
    assert (IDENTIFIER in report) is shown
    assert ("1987-02-17" in report) is shown
    assert "1987" in report
    assert room.get("/api/v1/site").json()["identity_shown"] is shown
