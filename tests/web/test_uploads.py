"""Uploads: limits, broken bodies, hostile archives, and file names that must be ignored."""

import asyncio
import gzip
import io
import itertools
import threading
import zipfile
import zlib
from collections.abc import AsyncIterator, Callable, Iterator

import pytest
from anyio import CapacityLimiter
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.requests import ClientDisconnect
from starlette.types import Message

from hemoscope.store.settings import UploadLimits
from hemoscope.store.store import Store
from hemoscope.store.uploads import Upload
from hemoscope.web.multipart_upload import (
    MultipartFiles,
    abandoned_with_client,
    begun_in_thread,
    boundary_of,
    receive_files,
)
from hemoscope.web.problems import Problem

BOUNDARY = "a-boundary"
FORM = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
CSRF = {"X-CSRF-Token": "local"}


def part(content: bytes, *, name: str = "files", filename: str = "x") -> bytes:
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"; filename="{filename}"\r\n\r\n'
    return head.encode() + content + b"\r\n"


END = f"--{BOUNDARY}--\r\n".encode()


def send(room: TestClient, body: bytes | Iterator[bytes], headers: dict[str, str] = FORM) -> tuple[int, str]:
    answer = room.post("/api/v1/uploads", content=body, headers=headers)
    return answer.status_code, answer.json().get("code", "")


@pytest.mark.parametrize(
    ("body", "headers", "expected"),
    [
        (b"", {"Content-Type": "application/json"}, (415, "not_multipart")),
        (b"", {}, (415, "not_multipart")),
        (b"", {"Content-Type": "multipart/form-data"}, (400, "bad_multipart")),
        (b"", FORM, (400, "bad_multipart")),
        (b"nonsense", FORM, (400, "bad_multipart")),
        (part(b"x"), FORM, (400, "bad_multipart")),
        (part(b"x")[:30], FORM, (400, "bad_multipart")),
        (END, FORM, (422, "empty_upload")),
        (part(b"") + END, FORM, (422, "empty_upload")),
        (part(b"x", name="file") + END, FORM, (400, "unknown_field")),
        (part(b"x") + part(b"y", name="comment") + END, FORM, (400, "unknown_field")),
    ],
)
def test_a_body_that_is_no_upload_is_refused_with_the_cause(
    room: TestClient, store: Store, body: bytes, headers: dict[str, str], expected: tuple[int, str]
) -> None:
    assert send(room, body, headers) == expected
    assert room.get("/api/v1/studies").json()["total"] == 0
    assert list(store.folder.uploads()) == []


@pytest.mark.parametrize(
    "filename",
    ["../../etc/passwd", "/etc/passwd", "..\\x", "a\x00b", "CON", "%2e%2e%2f", "x" * 3000, "\u2019\xfcn\xef"],
)
def test_file_names_of_the_client_lead_nowhere(room: TestClient, store: Store, filename: str) -> None:
    body = part(b"content", filename=filename) + END
    assert room.post("/api/v1/uploads", content=body, headers=FORM).status_code == 202
    files = sorted(path for path in store.folder.root.rglob("*") if path.is_file() and not path.name.startswith("."))
    assert [(path.name, path.read_bytes()) for path in files] == [("000001", b"content")]
    assert files[0].stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("contents", "code"),
    [([b"x" * 100_001], "file_too_large"), ([b"x"] * 4, "too_many_files"), ([b"x" * 80_000] * 2, "upload_too_large")],
)
def test_limits_hold_while_the_bytes_arrive(
    make_room: Callable[..., TestClient], small_limits: Store, contents: list[bytes], code: str
) -> None:
    room = make_room(over=small_limits)
    body = b"".join(part(content) for content in contents) + END
    assert send(room, iter([body[:1000], body[1000:]]), FORM | CSRF) == (413, code)
    assert list(small_limits.folder.uploads()) == []


def test_a_body_that_says_it_is_too_large_is_refused_unread(make_room: Callable[..., TestClient]) -> None:
    room = make_room(upload_mib=1)
    answer = room.post("/api/v1/uploads", content=part(b"x") + END, headers=FORM | CSRF | {"Content-Length": "9000000"})
    assert (answer.status_code, answer.json()["code"]) == (413, "upload_too_large")
    assert "--upload-mib" in answer.json()["cure"]


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "gzip, gzip"])
def test_a_compressed_body_is_never_inflated(room: TestClient, store: Store, coding: str) -> None:
    """A decompression bomb of a few kilobytes would fill the memory of the web process (CVE-2026-5438)."""
    pack = zlib.compress if coding == "deflate" else gzip.compress
    body = part(bytes(50_000)) + END
    for content in (body, pack(body)):
        assert send(room, content, FORM | {"Content-Encoding": coding}) == (415, "encoded_body")
        headers = {"Content-Type": "application/json", "Content-Encoding": coding}
        answer = room.put("/api/v1/site", content=content, headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (415, "encoded_body")
    assert list(store.folder.uploads()) == []
    assert send(room, body, FORM | {"Content-Encoding": "identity"})[0] == 202


@pytest.mark.parametrize("header", [b"X" * 9000, b"X: " + b"y" * 9000, b"\r\n".join([b"X: y"] * 99)])
def test_headers_of_a_part_stay_small(room: TestClient, store: Store, header: bytes) -> None:
    """They are kept in memory, and no limit on files counts them."""
    begin = f"--{BOUNDARY}\r\n".encode()
    disposition = b'Content-Disposition: form-data; name="files"\r\n'
    assert send(room, begin + disposition + header + b"\r\n\r\nx\r\n" + END) == (400, "bad_multipart")
    assert list(store.folder.uploads()) == []


@pytest.mark.parametrize("before", [True, False])
def test_bytes_around_the_parts_do_not_arrive_without_end(store: Store, before: bool) -> None:
    """They are written nowhere, so no limit of the store counts them."""
    store.limits = UploadLimits(file_bytes=1 << 20, files=9, upload_bytes=1 << 20)
    sent = 0

    async def body() -> AsyncIterator[bytes]:
        nonlocal sent
        yield b"\r\n" if before else part(b"x") + END
        while sent < 50 << 20:
            sent += 1 << 20
            yield b"\r" + bytes((1 << 20) - 1)

    async def receive(upload: Upload) -> None:
        await receive_files(upload, BOUNDARY.encode(), body(), limiter=CapacityLimiter(1))

    with pytest.raises(Problem, match="larger than the 1 MiB"), store.begin_upload() as upload:
        asyncio.run(receive(upload))
    assert sent == 5 << 20


@pytest.mark.parametrize("path", ["/api/v1/uploads", "/api/v1/login", "/api/v1/site", "/worklist"])
@pytest.mark.parametrize("length", ["5368709120", "9" * 19])
def test_no_declared_length_is_made_room_for(room: TestClient, path: str, length: str) -> None:
    """CVE-2026-5440: the answer comes before the body, of which not one byte was sent."""
    answer = room.post(path, content=iter([b""]), headers=FORM | {"Content-Length": length})
    assert (answer.status_code, answer.json()["code"]) in {(413, "upload_too_large"), (413, "body_too_large")}


def test_an_upload_too_many_is_asked_to_try_again(make_room: Callable[..., TestClient]) -> None:
    room = make_room(concurrent_uploads=1)
    room.portal.call(room.app.state.app_state.uploads.acquire_on_behalf_of_nowait, "somebody else")
    answer = room.post("/api/v1/uploads", content=part(b"x") + END, headers=FORM | CSRF)
    assert (answer.status_code, answer.json()["code"], answer.headers["Retry-After"]) == (503, "too_many_uploads", "5")


def test_other_bodies_are_small(room: TestClient) -> None:
    large = {"token": "x" * (65 << 10)}
    assert room.post("/api/v1/login", json=large).json()["code"] == "body_too_large"

    def chunks() -> Iterator[bytes]:
        yield b'{"token": "'
        for _ in range(70):
            yield b"x" * 1024
        yield b'"}'

    answer = room.post("/api/v1/login", content=chunks(), headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.json()["code"]) == (413, "body_too_large")


def test_writing_stops_when_the_client_has_gone(store: Store) -> None:
    async def body() -> AsyncIterator[bytes]:
        yield part(b"x") * 4000
        raise ClientDisconnect

    async def receive(upload: Upload) -> None:
        await receive_files(upload, BOUNDARY.encode(), body(), limiter=CapacityLimiter(1))

    with pytest.raises(Problem, match="closed the connection"), store.begin_upload() as upload:
        asyncio.run(receive(upload))
    assert upload.files < 4000
    assert list(store.folder.uploads()) == []


def test_an_upload_whose_client_leaves_before_the_answer_is_not_accepted(
    room: TestClient, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client would not know of it, and send the study again."""
    make_durable = Upload.make_durable

    def leave_first(upload: Upload) -> None:
        upload.abandoned.set()
        make_durable(upload)

    monkeypatch.setattr(Upload, "make_durable", leave_first)
    assert send(room, part(b"x") + END) == (400, "upload_abandoned")
    assert store.counts().queue_depth == 0
    assert list(store.folder.uploads()) == []


def test_the_end_of_the_connection_abandons_an_upload(store: Store) -> None:
    async def watch(*messages: str) -> bool:
        left = list(messages)

        async def receive() -> Message:
            if not left:
                await asyncio.Event().wait()
            return {"type": left.pop(0)}

        with store.begin_upload() as upload:
            async with abandoned_with_client(upload, receive):
                for _ in range(5):
                    await asyncio.sleep(0)
            return upload.abandoned.is_set()

    assert asyncio.run(watch("http.request", "http.disconnect"))
    assert not asyncio.run(watch("http.request"))


@pytest.mark.parametrize("slow", ["__enter__", "__exit__"])
def test_a_folder_that_takes_long_holds_up_no_other_client(
    room: TestClient, store: Store, monkeypatch: pytest.MonkeyPatch, slow: str
) -> None:
    begun, answered, waited = threading.Event(), threading.Event(), list[bool]()
    step = getattr(Upload, slow)

    def wait_first(*arguments: object) -> object:
        begun.set()
        waited.append(answered.wait(20))
        return step(*arguments)

    monkeypatch.setattr(Upload, slow, wait_first)
    sending = threading.Thread(target=send, args=(room, b"nonsense"))
    sending.start()
    assert begun.wait(20)
    assert room.get("/health").status_code == 200
    answered.set()
    sending.join()
    assert waited == [True]
    assert list(store.folder.uploads()) == []


@pytest.mark.parametrize("slow", ["__enter__", "__exit__"])
def test_a_cancelled_request_leaves_no_folder(store: Store, monkeypatch: pytest.MonkeyPatch, slow: str) -> None:
    begun, cancelled = threading.Event(), threading.Event()
    step = getattr(Upload, slow)

    def wait_first(*arguments: object) -> object:
        begun.set()
        assert cancelled.wait(20)
        return step(*arguments)

    monkeypatch.setattr(Upload, slow, wait_first)

    async def request() -> None:
        async with begun_in_thread(store.begin_upload(), limiter=CapacityLimiter(1)):
            await asyncio.sleep(0)

    async def cancel() -> None:
        task = asyncio.create_task(request())
        await asyncio.to_thread(begun.wait, 20)
        task.cancel()
        asyncio.get_running_loop().call_later(0.2, cancelled.set)
        with pytest.raises(asyncio.CancelledError):
            await task
        assert list(store.folder.uploads()) == []

    asyncio.run(cancel())


def test_one_user_has_a_limited_number_of_uploads_in_transfer(make_room: Callable[..., TestClient]) -> None:
    room = make_room(uploads_per_user=1)
    state = room.app.state.app_state  # type: ignore[attr-defined]
    for user, expected in (("somebody else", 202), ("local", 429)):
        state.receiving[user] += 1
        answer = room.post("/api/v1/uploads", content=part(b"x") + END, headers=FORM | CSRF)
        assert answer.status_code == expected
    assert (answer.json()["code"], answer.headers["Retry-After"]) == ("too_many_uploads_of_user", "5")
    state.receiving.clear()
    assert send(room, b"nonsense", FORM | CSRF)[0] == 400
    assert send(room, part(b"x") + END, FORM | CSRF)[0] == 202, "the place was given back"


def archive_of(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def bomb() -> bytes:
    """A ZIP that says of itself that it inflates to far more than it holds."""
    content = bytearray(archive_of({"bomb.dcm": b"\0" * 5_000_000}))
    directory = content.rfind(b"PK\x01\x02")
    content[directory + 24 : directory + 28] = (0xFFFFFFF0).to_bytes(4, "little")
    return bytes(content)


@pytest.mark.parametrize(
    "hostile",
    [
        b"PK\x03\x04 this is no archive",
        b"not DICOM at all",
        archive_of({"../../escape.dcm": b"x", "/absolute.dcm": b"y"}),
        archive_of({"inner.zip": archive_of({"a.dcm": b"z"})}),
        bomb(),
    ],
    ids=["broken", "text", "traversal", "nested", "bomb"],
)
def test_a_hostile_upload_ends_as_a_failed_study_with_a_cause(
    room: TestClient, store: Store, work: Callable[..., None], hostile: bytes
) -> None:
    accepted = room.post("/api/v1/uploads", content=part(hostile) + END, headers=FORM)
    assert accepted.status_code == 202
    work()
    study = room.get(f"/api/v1/studies/{accepted.json()['study']['study_id']}").json()
    assert study["state"] == "failed"
    assert study["error_code"]
    assert study["error_message"]
    assert study["error_cure"]
    assert not list(store.folder.root.parent.glob("**/escape.dcm"))
    report = room.get(f"/api/v1/studies/{study['study_id']}/report.html")
    assert (report.status_code, report.json()["code"]) == (409, "nothing_read")


def test_a_boundary_as_long_as_the_standard_allows_is_read() -> None:
    assert boundary_of(f"multipart/form-data; boundary={'x' * 70}") == b"x" * 70
    with pytest.raises(Problem, match="no usable boundary"):
        boundary_of(f"multipart/form-data; boundary={'x' * 71}")


@given(
    contents=st.lists(st.binary(max_size=300), min_size=1, max_size=4),
    cuts=st.lists(st.integers(min_value=0, max_value=1500), max_size=8),
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_files_are_the_same_however_the_network_cuts_the_body(
    store: Store, contents: list[bytes], cuts: list[int]
) -> None:
    body = b"".join(part(content) for content in contents) + END
    places = [0, *sorted(min(cut, len(body)) for cut in cuts), len(body)]
    with store.begin_upload() as upload:
        files = MultipartFiles(upload, BOUNDARY.encode())
        for first, last in itertools.pairwise(places):
            files.feed(body[first:last])
        files.finish()
        folder = store.folder.source(upload.upload_id)
        assert [path.read_bytes() for path in sorted(folder.glob("0*"))] == contents
