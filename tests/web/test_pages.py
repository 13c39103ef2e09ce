"""The pages and everything around the API: the disclaimer, the policy, static files, probes, numbers, OpenAPI."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from hemoscope.store.store import Store
from hemoscope.web.static_files import files_digest

REPOSITORY = Path(__file__).resolve().parents[2]
STATIC = REPOSITORY / "src" / "hemoscope" / "web" / "static"
STUDY = f"/studies/{'0' * 32}"


@pytest.mark.parametrize("path", ["/", STUDY])
def test_the_served_page_holds_the_disclaimer(room: TestClient, path: str) -> None:
    answer = room.get(path)
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    assert "Research use only, not a medical device" in answer.text
    assert answer.headers["Cache-Control"] == "no-cache"


def test_the_login_page_has_the_disclaimer_too(guarded: TestClient) -> None:
    assert "Research use only, not a medical device" in guarded.get("/login").text


@pytest.mark.parametrize("path", ["/", STUDY])
def test_without_a_session_a_page_leads_to_the_login(guarded: TestClient, path: str) -> None:
    answer = guarded.get(path)
    onward = "" if path == "/" else f"?next={path}"
    assert (answer.status_code, answer.headers["Location"]) == (303, f"/login{onward}")


@pytest.mark.parametrize(
    ("asked", "onward"),
    [
        ("/?urgency=routine&search=a%26b", "/%3Furgency%3Droutine%26search%3Da%2526b"),
        (f"{STUDY}?urgency=routine", f"{STUDY}%3Furgency%3Droutine"),
        ("/?next=//evil.example&x=%0d%0aSet-Cookie:a", "/%3Fnext%3D//evil.example%26x%3D%250d%250aSet-Cookie%3Aa"),
    ],
)
def test_filters_outlast_the_login_and_the_way_back_stays_on_this_server(
    guarded: TestClient, asked: str, onward: str
) -> None:
    assert guarded.get(asked).headers["Location"] == f"/login?next={onward}"


def test_the_login_form_without_its_script_puts_no_password_into_an_address(guarded: TestClient) -> None:
    form = re.search(r"<form id=\"login\"[^>]*>", guarded.get("/login").text)
    assert form
    assert 'method="post"' in form[0]
    action = re.search(r'action="([^"]*)"', form[0])
    assert action
    answer = guarded.post(action[1], data={"name": "reader", "password": "a long enough password"})
    assert (answer.status_code, answer.headers["Location"]) == (303, "/login")
    assert "password" not in answer.text + str(answer.headers)


def test_without_users_the_login_leads_to_the_worklist(room: TestClient) -> None:
    answer = room.get("/login")
    assert (answer.status_code, answer.headers["Location"]) == (303, "/")


@pytest.mark.parametrize("path", ["/", "/health", "/nowhere", "/static/icon.svg", "/api/v1/studies", "/openapi.json"])
def test_every_answer_has_the_strict_headers(room: TestClient, path: str) -> None:
    headers = room.get(path).headers
    policy = dict(part.split(" ", 1) for part in headers["Content-Security-Policy"].split("; "))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == "'self'"
    assert policy["frame-ancestors"] == "'none'"
    assert not [value for value in policy.values() if "unsafe" in value or "http" in value]
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["X-Frame-Options"] == "DENY"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert "Server" not in headers
    assert "Access-Control-Allow-Origin" not in headers


def test_a_host_that_is_refused_gets_the_strict_headers_too(room: TestClient) -> None:
    assert "default-src 'none'" in room.get("/", headers={"Host": "evil"}).headers["Content-Security-Policy"]


@pytest.mark.parametrize("page", sorted(path.name for path in STATIC.glob("*.html")))
def test_a_page_loads_from_this_server_alone_and_has_nothing_inline(room: TestClient, page: str) -> None:
    text = (STATIC / page).read_text()
    for address in re.findall(r'(?:src|href)="([^"#]+)"', text):
        assert address.startswith("/")
        if address.startswith("/static/"):
            assert room.get(address).status_code == 200, address
    assert not re.search(r"<style|\sstyle=|\son[a-z]+=|<script(?![^>]*\ssrc=)", text)


def test_static_files_are_confirmed_by_their_tag(room: TestClient) -> None:
    first = room.get("/static/icon.svg")
    assert first.headers["Cache-Control"] == "no-cache"
    again = room.get("/static/icon.svg", headers={"If-None-Match": first.headers["ETag"]})
    assert (again.status_code, again.content) == (304, b"")


def test_a_page_that_was_open_during_an_upgrade_still_finds_its_files(room: TestClient) -> None:
    current, earlier = f"/static/{files_digest()}/planes.js", f"/static/{'0' * 16}/planes.js"
    assert "immutable" in room.get(current).headers["Cache-Control"]
    answer = room.get(earlier)
    assert (answer.status_code, answer.text) == (200, room.get(current).text)
    assert answer.headers["Cache-Control"] == "no-cache"
    assert room.get("/static/0123/planes.js").status_code == 404


def test_text_is_packed_and_pixels_are_not(room: TestClient, study_id: str) -> None:
    assert room.get(f"/api/v1/studies/{study_id}").headers["Content-Encoding"] == "gzip"
    pixels = room.get(f"/api/v1/studies/{study_id}/slices/0/pixels").headers
    assert "Content-Encoding" not in pixels
    assert pixels["Content-Length"] == str(2 * 64 * 64)


def test_reports_are_a_page_and_a_pdf_that_load_nothing(room: TestClient, study_id: str) -> None:
    page = room.get(f"/api/v1/studies/{study_id}/report.html")
    assert page.headers["Content-Type"] == "text/html; charset=utf-8"
    assert re.fullmatch(
        r"default-src 'none'; style-src 'sha256-[\w+/=]+'; img-src data:; "
        r"base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        page.headers["Content-Security-Policy"],
    )
    assert "not a medical device" in page.text.lower()
    assert "data:image/png" in page.text
    room.post(
        f"/api/v1/studies/{study_id}/feedback",
        json={"label": "subdural", "verdict": "corrected", "present": False, "note": "<b>an artefact</b>"},
    )
    assert "&lt;b&gt;an artefact" in room.get(f"/api/v1/studies/{study_id}/report.html").text
    paper = room.get(f"/api/v1/studies/{study_id}/report.pdf")
    assert paper.headers["Content-Type"] == "application/pdf"
    assert paper.content.startswith(b"%PDF-")


def test_ready_asks_for_the_database_and_a_living_worker(room: TestClient, store: Store) -> None:
    assert room.get("/health").json() == {"status": "ok"}
    answer = room.get("/ready")
    assert (answer.status_code, answer.json()["code"]) == (503, "no_worker")
    store.jobs.join("w" * 32, host="here", pid=1)
    ready = room.get("/ready").json()
    assert (ready["status"], ready["workers"], ready["queue_depth"]) == ("ready", 1, 0)
    assert set(ready["results"].values()) == {0, None}, "nothing was sent anywhere"


def test_metrics_count_requests_by_template_and_the_queue(room: TestClient, archive: bytes) -> None:
    room.post("/api/v1/uploads", files=[("files", ("x", archive))])
    room.get(STUDY)
    room.get(f"/api/v1{STUDY}")
    room.get("/nowhere-1")
    room.get("/static/icon.svg")
    text = room.get("/metrics").text
    assert 'hemoscope_http_requests_total{method="POST",route="/api/v1/uploads",status="202"} 1.0' in text
    assert 'hemoscope_http_requests_total{method="GET",route="/api/v1/studies/{study_id}",status="404"} 1.0' in text
    assert 'hemoscope_http_requests_total{method="GET",route="unmatched",status="404"} 1.0' in text
    assert 'hemoscope_http_requests_total{method="GET",route="/static",status="200"} 1.0' in text
    assert "hemoscope_queue_depth 1.0" in text
    assert 'hemoscope_studies{state="queued"} 1.0' in text
    assert 'hemoscope_http_request_seconds_bucket{le="0.2",method="POST",route="/api/v1/uploads"}' in text
    assert float(re.search(r"^hemoscope_oldest_waiting_seconds (\S+)", text, re.MULTILINE)[1]) >= 0
    assert "0" * 32 not in text


def test_the_openapi_document_describes_every_route_and_its_problems(room: TestClient) -> None:
    document = room.get("/openapi.json").json()
    assert "not a medical device" in document["info"]["description"].lower()
    assert "HTTPValidationError" not in document["components"]["schemas"]
    for path, methods in document["paths"].items():
        for method, route in methods.items():
            assert route["responses"]["429"]["content"].keys() == {"application/problem+json"}, (method, path)
            assert ("security" in route) == (path not in {"/health", "/ready", "/api/v1/login"}), (method, path)
            assert route["description"], (method, path)


def test_the_reference_page_lists_every_route_and_no_other(room: TestClient) -> None:
    page = (REPOSITORY / "docs" / "reference" / "rest-api.md").read_text()
    listed = set(re.findall(r"^\| `(GET|POST|PUT|DELETE) (\S+?)` \|", page, re.MULTILINE))
    paths = room.get("/openapi.json").json()["paths"]
    assert listed == {(method.upper(), path) for path, methods in paths.items() for method in methods}


def test_the_first_request_of_a_fresh_application_is_not_counted_before(make_room: Callable[..., TestClient]) -> None:
    first, second = make_room(), make_room()
    first.get("/health")
    assert 'route="/health"' not in second.get("/metrics").text
