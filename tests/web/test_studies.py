"""The REST routes, each as a radiologist's page uses it."""

import json
from collections.abc import Callable
from http import HTTPStatus

import numpy as np
import pytest
from fastapi.testclient import TestClient
from jsonschema import Draft202012Validator

from hemoscope.labels import LABELS
from hemoscope.reports.findings_json import findings_schema
from hemoscope.store.refusals import refusal
from hemoscope.store.store import Store
from hemoscope.web.routes.reports import _DRAW

COLUMNS, ROWS, SLICES = 64, 64, 4


def upload(room: TestClient, *contents: bytes) -> dict[str, object]:
    answer = room.post("/api/v1/uploads", files=[("files", ("name", content)) for content in contents])
    assert answer.status_code == HTTPStatus.ACCEPTED, answer.text
    return dict(answer.json()["study"])


def test_an_upload_is_accepted_at_once_and_waits(room: TestClient, slices: tuple[bytes, ...]) -> None:
    study = upload(room, *slices)
    assert study["state"] == "queued"
    assert study["submitted_by"] == "local"
    listed = room.get("/api/v1/studies").json()
    assert listed["total"] == 1
    assert listed["studies"] == [study]


@pytest.mark.parametrize("way", ["files", "archive"])
def test_files_and_their_archive_give_the_same_findings(
    room: TestClient, slices: tuple[bytes, ...], archive: bytes, work: Callable[..., None], way: str
) -> None:
    study = upload(room, *(slices if way == "files" else [archive]))
    work()
    done = room.get(f"/api/v1/studies/{study['study_id']}").json()
    assert done["state"] == "done"
    assert done["instances"] == SLICES
    assert done["findings"]["studies"][0]["probabilities"]["any"] == pytest.approx(
        max(row[0] for row in done["geometry"]["probabilities"]), abs=0.5
    )


def test_findings_are_the_document_that_predict_prints(room: TestClient, study_id: str) -> None:
    answer = room.get(f"/api/v1/studies/{study_id}/findings")
    document = json.loads(answer.text)
    Draft202012Validator(findings_schema()).validate(document)
    assert answer.text == json.dumps(document, indent=2) + "\n"
    assert document["studies"][0]["triage"] == room.get(f"/api/v1/studies/{study_id}").json()["urgency"]


def test_pixels_are_the_hounsfield_units_of_the_phantom(room: TestClient, study_id: str) -> None:
    from hemoscope.labels import Hemorrhage
    from hemoscope.testing.phantom import make_phantom

    head = make_phantom(seed=5, shape=(SLICES, ROWS, COLUMNS), bleeds=frozenset({Hemorrhage.SUBDURAL}))
    for index in range(SLICES):
        answer = room.get(f"/api/v1/studies/{study_id}/slices/{index}/pixels")
        shape = int(answer.headers["X-Rows"]), int(answer.headers["X-Columns"])
        assert (np.frombuffer(answer.content, "<i2").reshape(shape) == head.hounsfield[index]).all()


def test_several_slices_in_one_answer_are_those_of_single_answers(room: TestClient, study_id: str) -> None:
    path = f"/api/v1/studies/{study_id}"
    one_by_one = [room.get(f"{path}/slices/{index}/pixels").content for index in range(SLICES)]
    for first, stride, count in ((0, 1, 32), (1, 2, 2), (SLICES - 1, 5, 3)):
        answer = room.get(f"{path}/pixels", params={"first": first, "stride": stride, "count": count})
        expected = one_by_one[first::stride][:count]
        shape = [int(answer.headers[name]) for name in ("X-Slices", "X-Rows", "X-Columns")]
        assert shape == [len(expected), ROWS, COLUMNS]
        assert answer.content == b"".join(expected)
    beyond = room.get(f"{path}/pixels", params={"first": SLICES})
    assert (beyond.status_code, beyond.json()["code"]) == (404, "no_such_slice")
    for wrong in ({"count": 33}, {"stride": 0}, {"first": -1}):
        assert room.get(f"{path}/pixels", params=wrong).status_code == 422


def test_heat_maps_of_all_labels_have_the_shape_that_the_geometry_states(room: TestClient, study_id: str) -> None:
    geometry = room.get(f"/api/v1/studies/{study_id}").json()["geometry"]
    maps = {}
    for label in LABELS:
        answer = room.get(f"/api/v1/studies/{study_id}/slices/1/heatmap/{label}")
        shape = [int(answer.headers["X-Rows"]), int(answer.headers["X-Columns"])]
        assert shape == geometry["heatmap_shape"]
        maps[label] = np.frombuffer(answer.content, np.uint8).reshape(shape)
    assert len({found.tobytes() for found in maps.values()}) == len(LABELS)


@pytest.mark.parametrize("path", ["pixels", "heatmap/any"])
def test_slices_are_cached_privately_and_confirmed_by_their_tag(room: TestClient, study_id: str, path: str) -> None:
    address = f"/api/v1/studies/{study_id}/slices/0/{path}"
    first = room.get(address)
    assert first.headers["Cache-Control"] == "private, max-age=86400, immutable"
    again = room.get(address, headers={"If-None-Match": first.headers["ETag"]})
    assert (again.status_code, again.content) == (304, b"")


@pytest.mark.parametrize("path", ["", "/findings"])
def test_what_is_known_of_a_patient_stays_in_no_cache(room: TestClient, study_id: str, path: str) -> None:
    address = f"/api/v1/studies/{study_id}{path}"
    first = room.get(address)
    assert (first.status_code, first.headers["Cache-Control"]) == (200, "no-store")
    confirmed = room.get(address, headers={"If-None-Match": first.headers.get("ETag", "")})
    assert confirmed.headers["Cache-Control"] == "no-store"


def test_a_study_is_sent_again_only_after_it_changed(room: TestClient, study_id: str) -> None:
    address = f"/api/v1/studies/{study_id}"
    tag = {"If-None-Match": room.get(address).headers["ETag"]}
    assert room.get(address, headers=tag).status_code == 304
    room.post(f"{address}/feedback", json={"label": "any", "verdict": "agree", "present": True})
    assert room.get(address, headers=tag).status_code == 200


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/slices/4/pixels", "no_such_slice"),
        ("/slices/4/heatmap/any", "no_such_slice"),
    ],
)
def test_what_a_study_does_not_have_is_not_found(room: TestClient, study_id: str, path: str, code: str) -> None:
    answer = room.get(f"/api/v1/studies/{study_id}{path}")
    assert (answer.status_code, answer.json()["code"]) == (404, code)


@pytest.mark.parametrize("path", ["", "/findings", "/feedback", "/slices/0/pixels", "/slices/0/heatmap/any"])
def test_an_unknown_study_is_not_found(room: TestClient, path: str) -> None:
    answer = room.get(f"/api/v1/studies/{'0' * 32}{path}")
    assert (answer.status_code, answer.json()["code"]) == (404, "no_such_study")


@pytest.mark.parametrize("path", ["/findings", "/slices/0/pixels", "/slices/0/heatmap/any"])
def test_a_result_that_is_not_ready_asks_to_wait(room: TestClient, slices: tuple[bytes, ...], path: str) -> None:
    study = upload(room, *slices)
    answer = room.get(f"/api/v1/studies/{study['study_id']}{path}")
    assert answer.status_code == 409
    assert "Wait until" in answer.json()["cure"]


def test_a_deleted_study_is_gone(room: TestClient, study_id: str) -> None:
    assert room.delete(f"/api/v1/studies/{study_id}").status_code == 204
    assert room.get(f"/api/v1/studies/{study_id}").status_code == 404
    assert room.get(f"/api/v1/studies/{study_id}/slices/0/pixels").status_code == 404
    assert room.get("/api/v1/studies").json()["total"] == 0
    assert room.delete(f"/api/v1/studies/{study_id}").status_code == 404


def test_the_worklist_filters_searches_and_pages(room: TestClient, study_id: str, slices: tuple[bytes, ...]) -> None:
    upload(room, *slices)
    urgency = room.get(f"/api/v1/studies/{study_id}").json()["urgency"]

    def ids(query: str) -> list[str]:
        return [study["study_id"] for study in room.get(f"/api/v1/studies?{query}").json()["studies"]]

    assert ids("state=done") == [study_id]
    assert len(ids("state=done&state=queued")) == 2
    assert ids(f"urgency={urgency}") == [study_id]
    assert study_id not in ids("urgency=unknown")
    assert ids(f"search={study_id}") == [study_id]
    assert ids("search=nothing-has-this") == []
    assert ids("limit=1") + ids("limit=1&offset=1") == ids("")
    longest_first = ids("sort=waiting")
    assert longest_first[0] == study_id
    assert ids("sort=-waiting&limit=1") == longest_first[1:]


def test_a_study_that_was_uploaded_twice_is_marked_until_the_first_is_deleted(
    room: TestClient, study_id: str, slices: tuple[bytes, ...], work: Callable[..., None]
) -> None:
    again = str(upload(room, *slices)["study_id"])
    part = str(upload(room, *slices[:3])["study_id"])
    for _ in range(2):
        work()

    def same() -> dict[str, str | None]:
        return {one["study_id"]: one["same_as"] for one in room.get("/api/v1/studies").json()["studies"]}

    assert same() == {study_id: None, again: study_id, part: None}
    assert room.get(f"/api/v1/studies/{again}").json()["same_as"] == study_id
    room.delete(f"/api/v1/studies/{study_id}")
    assert same() == {again: None, part: None}


def test_the_worklist_says_what_of_the_head_was_not_read(room: TestClient, study_id: str) -> None:
    [listed] = room.get("/api/v1/studies").json()["studies"]
    assert "less than a head" in listed["unread"]
    report = room.get(f"/api/v1/studies/{study_id}/report.html").text
    assert listed["unread"] in report.split("<dl>")[0], "beside the triage, not among the remarks"


def test_abbreviations_find_their_label(room: TestClient, study_id: str) -> None:
    def found(words: str) -> list[str]:
        return [one["study_id"] for one in room.get("/api/v1/studies", params={"search": words}).json()["studies"]]

    for label in LABELS[1:]:
        assert found(label.abbreviation) == found(label.value), label
    suspected = room.get(f"/api/v1/studies/{study_id}").json()["suspected"]
    assert [bool(found(label.abbreviation)) for label in LABELS[1:]] == [label in suspected for label in LABELS[1:]]


def test_a_report_is_drawn_again_only_when_feedback_changes_it(
    room: TestClient, study_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[str] = []
    for kind, draw in _DRAW.items():
        monkeypatch.setitem(_DRAW, kind, lambda report, draw=draw, kind=kind: (drawn.append(kind), draw(report))[1])
    for kind in ("html", "pdf", "html", "pdf"):
        assert room.get(f"/api/v1/studies/{study_id}/report.{kind}").status_code == 200
    assert drawn == ["html", "pdf"]
    given = {"label": "any", "verdict": "corrected", "present": False, "note": "artefact"}
    room.post(f"/api/v1/studies/{study_id}/feedback", json=given)
    page = room.get(f"/api/v1/studies/{study_id}/report.html").text
    assert "reader disagrees, not present. artefact" in page
    assert f"{study_id[:8]}" in page
    assert room.delete(f"/api/v1/studies/{study_id}").status_code == 204
    assert room.get(f"/api/v1/studies/{study_id}/report.html").status_code == 404


@pytest.mark.parametrize("path", ["/nowhere", "/studies/1234", "/studies/"])
def test_a_browser_at_an_unknown_address_gets_a_page_and_a_program_a_problem(room: TestClient, path: str) -> None:
    page = room.get(path, headers={"Accept": "text/html,*/*;q=0.8"})
    assert page.status_code == 404
    assert "Go to the worklist" in page.text
    assert "1234" not in page.text
    assert room.get(path).headers["content-type"].startswith("application/problem+json")
    assert room.get("/api/v1/nowhere", headers={"Accept": "text/html"}).json()["code"] == "not_found"


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=1001", "offset=-1", "state=asleep", "urgency=never", "limit=many", "sort=age"]
)
def test_a_worklist_that_cannot_be_is_refused_with_the_field(room: TestClient, query: str) -> None:
    answer = room.get(f"/api/v1/studies?{query}")
    assert answer.status_code == 422
    assert f"query.{query.partition('=')[0]}" in answer.json()["detail"]


def test_feedback_is_kept_counted_and_exported(room: TestClient, study_id: str) -> None:
    given = {"label": "subdural", "verdict": "corrected", "present": True, "slices": [1, 2], "note": "thin"}
    answer = room.post(f"/api/v1/studies/{study_id}/feedback", json=given)
    assert answer.status_code == 201
    assert answer.json() | given == answer.json()
    assert answer.json()["by"] == "local"
    assert room.get(f"/api/v1/studies/{study_id}/feedback").json()["feedback"] == [answer.json()]
    assert room.get(f"/api/v1/studies/{study_id}").json()["feedback"]["corrected"] == 1
    assert room.get("/api/v1/studies").json()["studies"][0]["readers"] == ["local"]
    recorded = [(entry["action"], entry["detail"]) for entry in room.get("/api/v1/audit").json()["entries"]]
    assert ("feedback", "subdural: corrected") in recorded
    lines = room.get("/api/v1/feedback.csv").text.splitlines()
    assert lines[0].startswith("image_id")
    assert len(lines) > 1


@pytest.mark.parametrize(
    "wrong",
    [
        {"label": "headache"},
        {"verdict": "maybe"},
        {"present": "perhaps"},
        {"slices": [-1]},
        {"slices": [99]},
        {"note": "x" * 2001},
        {"unknown": 1},
    ],
)
def test_feedback_that_cannot_be_is_refused(room: TestClient, study_id: str, wrong: dict[str, object]) -> None:
    given = {"label": "any", "verdict": "agree", "present": True} | wrong
    assert room.post(f"/api/v1/studies/{study_id}/feedback", json=given).status_code == 422


def test_the_site_knows_its_model_its_user_and_its_prevalence(room: TestClient) -> None:
    site = room.get("/api/v1/site").json()
    assert "not a medical device" in site["disclaimer"].lower()
    assert site["model"] == {"name": "tiny", "version": "1.0", "sha256": "0" * 64, "precision": "auto"}
    assert site["user"] == {"name": "local", "role": "admin"}
    assert site["prevalence"] is None
    assert room.put("/api/v1/site/prevalence", json={"prevalence": 0.12}).json()["prevalence"] == 0.12
    assert room.get("/api/v1/site").json()["prevalence"] == 0.12
    assert room.put("/api/v1/site/prevalence", json={"prevalence": 1.5}).status_code == 422


def test_the_model_is_shown_by_its_card(room: TestClient) -> None:
    assert room.get("/api/v1/model").json()["name"] == "tiny"


def test_the_card_is_a_page_too_on_which_nothing_but_its_style_may_load(room: TestClient) -> None:
    answer = room.get("/api/v1/model/card.html")
    assert answer.headers["content-type"].startswith("text/html")
    assert "<h1>Model card: tiny 1.0</h1>" in answer.text
    assert room.get("/api/v1/model").json()["sha256"] in answer.text
    assert "Error gallery: " in answer.text
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert "script-src" not in policy


def test_a_view_whose_record_failed_is_recorded_at_the_next(
    room: TestClient, study_id: str, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(**_entry: object) -> None:
        raise refusal("database_unreachable", "it is away")

    with monkeypatch.context() as patch:
        patch.setattr(store, "audit", fail)
        assert room.get(f"/api/v1/studies/{study_id}").status_code == 503
    assert room.get(f"/api/v1/studies/{study_id}").status_code == 200
    assert [entry.action for entry in store.audit_log()] == ["view", "upload"]


def test_the_audit_records_who_did_what_but_no_uid(room: TestClient, study_id: str, store: Store) -> None:
    uids = room.get(f"/api/v1/studies/{study_id}").json()["geometry"]["sop_instance_uids"]
    for index in range(SLICES):
        room.get(f"/api/v1/studies/{study_id}/slices/{index}/pixels")
    room.get(f"/api/v1/studies/{study_id}/findings")
    answer = room.get("/api/v1/audit")
    views = [(entry["user"], entry["action"]) for entry in answer.json()["entries"] if entry["study_id"] == study_id]
    assert views.count(("local", "view")) == 1
    assert ("local", "findings") in views
    assert not [uid for uid in uids if uid in answer.text]
    assert ("local", "upload") in views
    newest = answer.json()["entries"][0]["audit_id"]
    older = room.get(f"/api/v1/audit?before={newest}&limit=1").json()["entries"]
    assert len(older) == 1
    assert older[0]["audit_id"] < newest
