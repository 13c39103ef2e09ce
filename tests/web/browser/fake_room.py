"""A reading room without a database or a model: the REST contract over phantoms, for what only a browser can show.

It serves the page's own files under the same strict policy as the real server, so that what the policy would
block fails here too. Every label has a probability of its own, so that a number under a wrong name is seen.
"""

import asyncio
import json
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import numpy as np
import uvicorn
from fastapi import FastAPI, Query, Request
from fastapi.responses import HTMLResponse, JSONResponse, Response, StreamingResponse

from hemoscope.labels import LABELS, Hemorrhage
from hemoscope.messages.catalogue import english
from hemoscope.testing.phantom import Phantom, make_phantom
from hemoscope.web.static_files import VersionedFiles, page_text

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; "
    "font-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
DISCLAIMER = "Research use only, not a medical device"
# One number per label, distinct at two decimals.
DISTINCT = {"any": 0.91, "epidural": 0.12, "intraparenchymal": 0.83, "intraventricular": 0.34, "subarachnoid": 0.45,
            "subdural": 0.67}  # fmt: skip
THRESHOLDS = {"any": 0.24, "epidural": 0.5, "intraparenchymal": 0.23, "intraventricular": 0.5, "subarachnoid": 0.5,
              "subdural": 0.5}  # fmt: skip
NOT_ESTABLISHED = ("epidural", "intraventricular", "subarachnoid", "subdural")
NOTES = [
    {"code": "few_slices", "message": "12 slices cover 60 mm, less than a head"},
    {"code": "gantry_tilt", "message": "slices are tilted by 12.0 degrees"},
]


@dataclass(kw_only=True)
class FakeStudy:
    """One study: its phantom, and its entry as the API gives it."""

    phantom: Phantom
    entry: dict[str, Any]
    feedback: list[dict[str, Any]] = field(default_factory=list)


def suspected_at(urgency: str | None) -> list[str]:
    bleeds = urgency in {"immediate", "prompt"}
    return [label.value for label in LABELS if bleeds and DISTINCT[label] >= THRESHOLDS[label]]


def heat_of(phantom: Phantom, index: int, label: str) -> np.ndarray:
    """A heat map over the whole slice, warm where the label was planted: uint8, an eighth of the slice's size."""
    mask = phantom.masks[label][index].astype(np.float32)
    rows, columns = (side // 8 for side in mask.shape)
    means = mask[: rows * 8, : columns * 8].reshape(rows, 8, columns, 8).mean(axis=(1, 3))
    return np.rint(means * 240).astype(np.uint8)


def geometry_of(phantom: Phantom, **changes: Any) -> dict[str, Any]:
    slices, rows, columns = phantom.hounsfield.shape
    shown = phantom.slice_labels.astype(float)
    near = np.apply_along_axis(lambda column: np.convolve(column, [0.25, 0.5, 0.25], "same"), 0, shown)
    peaks = np.array([DISTINCT[label] for label in LABELS])
    probabilities = np.clip(0.02 + near * (peaks - 0.02), 0, 1)
    return {
        "slices": slices, "rows": rows, "columns": columns, "spacing_mm": list(phantom.spacing_mm),
        "orientation": [1.0, 0.0, 0.0, 0.0, 1.0, 0.0], "positions_mm": list(phantom.positions_mm), "assumed": False,
        "origins_mm": [list(origin) for origin in phantom.volume.origins_mm or ()],
        "boxes": [{"top": 0, "left": 0, "side": rows}] * slices, "heatmap_shape": [rows // 8, columns // 8],
        "labels": [label.value for label in LABELS], "sop_instance_uids": [f"1.2.{index}" for index in range(slices)],
        "probabilities": probabilities.tolist(), "thresholds": THRESHOLDS,
        "key_slices": {label.value: keys_of(probabilities[:, place], label) for place, label in enumerate(LABELS)},
        **changes,
    }  # fmt: skip


def keys_of(probabilities: np.ndarray, label: str) -> list[int]:
    return np.argsort(-probabilities, kind="stable")[:3].tolist() if DISTINCT[label] >= THRESHOLDS[label] else []


def findings_of(urgency: str, notes: list[dict[str, str]]) -> dict[str, Any]:
    findings = [
        {"label": label.value, "present": urgency != "routine" and DISTINCT[label] >= THRESHOLDS[label],
         "established": label not in NOT_ESTABLISHED, "probability": DISTINCT[label] if urgency != "routine" else 0.01,
         "threshold": THRESHOLDS[label], "slices": []}
        for label in LABELS
    ]  # fmt: skip
    study = {"triage": urgency, "findings": findings, "quality": notes, "skipped_series": [], "slices": []}
    model = {"name": "stub", "version": "1", "sha256": "0" * 64}  # of the card
    return {"schema": "hemoscope.findings/2", "model": model, "studies": [study], "rejected": []}


class FakeRoom:
    """Studies in memory, and the routes over them."""

    def __init__(self, card: dict[str, Any]) -> None:
        self.card = card
        self.catalogue = english()
        self.studies: dict[str, FakeStudy] = {}
        self.version = 0
        self.others: dict[str, Phantom] = {}
        self.changes: list[tuple[int, str, dict[str, Any]]] = []
        self.uploads: list[list[tuple[str, bytes]]] = []
        self.prevalence: float | None = 0.1
        self.login_required = False
        self.faulty = False  # the database is away
        self.listeners = 0
        self.refuse_upload: dict[str, Any] | None = None
        self.late_answers = False  # an upload is answered after the event that its study has failed
        self.app = FastAPI()
        self._routes()

    def add(
        self, phantom: Phantom, *, urgency: str | None = "immediate", waiting: timedelta = timedelta(minutes=4),
        notes: list[dict[str, str]] | None = None, geometry: dict[str, Any] | None = None, **changes: Any,
    ) -> str:  # fmt: skip
        """Put in a study; by default one that is done and immediate."""
        now = datetime.now(UTC)
        study_id = f"{len(self.studies) + 0xA1B2C3D4:08x}{'0' * 24}"
        done = urgency is not None
        entry = {
            "study_id": study_id, "upload_id": study_id, "received_at": (now - waiting).isoformat(),
            "acquired_at": (now - waiting - timedelta(minutes=38)).isoformat(), "state": "done" if done else "queued",
            "stage_done": 0, "stage_total": 0, "instances": len(phantom.hounsfield), "urgency": urgency,
            "suspected": suspected_at(urgency),
            "not_established": list(NOT_ESTABLISHED), "error_code": None, "error_message": None,
            "error_cure": None, "has_pixels": done,
            "has_maps": done, "submitted_by": "local", "identity": None, "feedback": {}, "verdicts": {},
            "readers": [], "claim": None, "reviews": [], "initials": {"local": "LO", "agnes": "AG"},
            "series": [], "kept_series": 0, "reading": 1, "superseded_by": None, "earlier": [], "deliveries": [],
            "findings": findings_of(urgency, NOTES if notes is None else notes) if urgency else None,
            "geometry": geometry_of(phantom, **(geometry or {})) if done else None,
        }  # fmt: skip
        self.studies[study_id] = FakeStudy(phantom=phantom, entry={**entry, **changes})
        self.change(study_id)
        return study_id

    def add_series(self, study_id: str, phantom: Phantom, description: str, **changes: Any) -> None:
        """Keep another series of a study, as the worker does once it has its result."""
        self.others[study_id] = phantom
        kept = {"number": 1, "description": description, "geometry": geometry_of(phantom)}
        self.change(study_id, series=[kept], kept_series=1, **changes)

    def change(self, study_id: str, **changes: Any) -> None:
        """Change a study and notify every open page."""
        self.version += 1
        self.studies[study_id].entry.update(changes, version=self.version)
        self.changes.append((self.version, "study", summary(self.studies[study_id].entry)))

    def read_soon(self, study_id: str) -> None:
        """Act as the worker: pixels first, then scores, then findings."""
        phantom = self.studies[study_id].phantom
        scored = geometry_of(phantom)
        unscored = {**scored, "probabilities": [], "thresholds": {}, "key_slices": {}, "heatmap_shape": None}
        time.sleep(0.15)
        self.change(study_id, state="reading", stage_done=3, stage_total=12)
        time.sleep(0.15)
        self.change(study_id, state="scoring", has_pixels=True, geometry=unscored, stage_done=5)
        time.sleep(0.3)
        self.change(
            study_id, state="done", urgency="immediate", suspected=["any", "intraparenchymal", "subdural"],
            has_maps=True, geometry=scored, findings=findings_of("immediate", NOTES),
        )  # fmt: skip

    def _routes(self) -> None:
        app = self.app

        @app.middleware("http")
        async def policy(request: Request, call_next: Any) -> Response:
            if self.faulty and request.url.path.startswith("/api/"):
                return problem(503, "database_unreachable", "The database does not answer.", "Wait")
            response = await call_next(request)
            response.headers["Content-Security-Policy"] = POLICY
            return response

        for path, name in (("/", "index.html"), ("/login", "login.html"), ("/studies/{study_id}", "study.html")):
            app.add_api_route(path, lambda name=name: HTMLResponse(page_text(name, self.catalogue)))
        app.mount("/static", VersionedFiles())
        for method, path, handler in (
            ("GET", "/site", self._site), ("GET", "/model", lambda: JSONResponse(self.card)),
            ("PUT", "/site/prevalence", self._set_prevalence), ("POST", "/login", self._login),
            ("GET", "/studies", self._list), ("GET", "/studies/{study_id}", self._study),
            ("DELETE", "/studies/{study_id}", self._delete), ("POST", "/uploads", self._upload),
            ("GET", "/studies/{study_id}/slices/{index}/pixels", self._pixels),
            ("GET", "/studies/{study_id}/pixels", self._several_pixels),
            ("GET", "/studies/{study_id}/slices/{index}/heatmap/{label}", self._heat),
            ("GET", "/studies/{study_id}/series/1/slices/{index}/pixels", self._series_pixels),
            ("GET", "/studies/{study_id}/feedback", self._feedback),
            ("POST", "/studies/{study_id}/feedback", self._give_feedback),
            ("GET", "/studies/{study_id}/measurements", lambda study_id: JSONResponse({"measurements": []})),
            ("GET", "/studies/{study_id}/report.html", lambda study_id: HTMLResponse("<h1>Report</h1>")),
            ("PUT", "/studies/{study_id}/claim", self._claim),
            ("DELETE", "/studies/{study_id}/claim", self._release),
            ("PUT", "/studies/{study_id}/review", self._review),
            ("DELETE", "/studies/{study_id}/review", self._withdraw_review),
            ("GET", "/events", self._events),
        ):  # fmt: skip
            app.add_api_route(f"/api/v1{path}", handler, methods=[method], response_model=None)

    def _site(self) -> Response:
        return JSONResponse({
            "disclaimer": DISCLAIMER, "model": {"name": "stub", "version": "1", "sha256": "0" * 64},
            "prevalence": self.prevalence, "identity_shown": False, "login_required": self.login_required,
            "roles": ["reader", "admin"], "user": {"name": "local", "role": "admin"}, "csrf_token": "token",
            "initials": "LO", "claim_seconds": 120.0,
        })  # fmt: skip

    async def _set_prevalence(self, request: Request) -> Response:
        self.prevalence = (await request.json())["prevalence"]
        return JSONResponse({"prevalence": self.prevalence})

    async def _login(self, request: Request) -> Response:
        if (await request.json()).get("password") == "right":
            return JSONResponse({"user": {"name": "r", "role": "reader"}})
        return problem(401, "wrong_credentials", "That name and password are not known.", "Check them")

    def _list(
        self, search: str = "", urgency: str = "", reviewed: str = "", sort: str = "urgency", limit: int = 100,
        offset: int = 0, state: Annotated[list[str] | None, Query()] = None,
    ) -> Response:  # fmt: skip
        shown = [summary(study.entry) for study in self.studies.values()]
        shown = [one for one in shown if not (reviewed == "false" and one["reviews"])]
        shown = [one for one in shown if search in one["study_id"] and urgency in ("", one["urgency"] or "unknown")]
        shown = [one for one in shown if not state or one["state"] in state]
        shown.sort(key=in_order)
        if sort != "urgency":
            column = {"scan": "acquired_at", "waiting": "received_at", "study": "study_id", "slices": "instances"}
            shown.sort(key=lambda one: one[column[sort.removeprefix("-")]], reverse=sort.startswith("-"))
        page = shown[offset : offset + limit]
        return JSONResponse({"studies": page, "total": len(shown), "version": self.version})

    def _study(self, study_id: str) -> Response:
        if study_id not in self.studies:
            return problem(404, "unknown_study", "There is no such study.", "It may have been deleted")
        return JSONResponse(self.studies[study_id].entry, headers={"X-Version": str(self.version)})

    def _delete(self, study_id: str) -> Response:
        del self.studies[study_id]
        self.version += 1
        self.changes.append((self.version, "deleted", {"study_id": study_id}))
        return Response(status_code=204)

    async def _upload(self, request: Request) -> Response:
        if self.refuse_upload:
            return problem(**self.refuse_upload)
        assert request.headers["X-CSRF-Token"] == "token"
        async with request.form() as form:
            self.uploads.append([(file.filename, await file.read()) for file in form.getlist("files")])
        study_id = self.add(make_phantom(seed=4, bleeds=frozenset({Hemorrhage.SUBDURAL})), urgency=None,
                            waiting=timedelta(0), instances=0)  # fmt: skip
        accepted = summary(dict(self.studies[study_id].entry))
        if self.late_answers:
            self.change(study_id, state="failed", error_code="not_dicom", error_message="No file is DICOM.")
            await asyncio.sleep(0.5)  # the event goes out first
        else:
            threading.Thread(target=self.read_soon, args=(study_id,), daemon=True).start()
        return JSONResponse({"study": accepted}, status_code=202)

    def _pixels(self, study_id: str, index: int) -> Response:
        return slice_of(self.studies[study_id].phantom, index)

    def _several_pixels(self, study_id: str, first: int, stride: int, count: int) -> Response:
        chosen = self.studies[study_id].phantom.hounsfield[first::stride][:count]
        return Response(chosen.astype("<i2").tobytes(), media_type="application/octet-stream")

    def _series_pixels(self, study_id: str, index: int) -> Response:
        return slice_of(self.others[study_id], index)

    def _heat(self, study_id: str, index: int, label: str) -> Response:
        heat = heat_of(self.studies[study_id].phantom, index, label)
        return Response(heat.tobytes(), media_type="application/octet-stream")

    def _feedback(self, study_id: str) -> Response:
        return JSONResponse({"feedback": self.studies[study_id].feedback})

    async def _give_feedback(self, study_id: str, request: Request) -> Response:
        entry = {**(await request.json()), "by": "local", "at": datetime.now(UTC).isoformat()}
        given = self.studies[study_id].feedback
        given.append(entry)
        newest = {one["label"]: one["verdict"] for one in given}
        standing = {label: verdict for label, verdict in newest.items() if verdict != "withdrawn"}
        self.change(
            study_id, verdicts=standing, feedback=Counter(standing.values()), readers=["local"] * bool(standing)
        )
        return JSONResponse(entry, status_code=201)

    async def _claim(self, study_id: str, request: Request) -> Response:
        held = self.studies[study_id].entry["claim"]
        if held is None or (await request.json())["take_over"]:
            self.change(study_id, claim={"by": "local", "since": datetime.now(UTC).isoformat()})
        return JSONResponse(self.studies[study_id].entry["claim"])

    def _release(self, study_id: str) -> Response:
        self.change(study_id, claim=None)
        return Response(status_code=204)

    def _review(self, study_id: str) -> Response:
        review = {"by": "local", "at": datetime.now(UTC).isoformat()}
        self.change(study_id, reviews=[review])
        return JSONResponse(review)

    def _withdraw_review(self, study_id: str) -> Response:
        self.change(study_id, reviews=[])
        return Response(status_code=204)

    def _events(self, since: int = 0) -> Response:
        return StreamingResponse(self._stream(since), media_type="text/event-stream")

    async def _stream(self, seen: int) -> AsyncIterator[str]:
        self.listeners += 1
        try:
            yield "retry: 500\n\n"
            while not self.server.should_exit:
                for version, name, data in [change for change in self.changes if change[0] > seen]:
                    seen = version
                    yield f"id: {version}\nevent: {name}\ndata: {json.dumps(data)}\n\n"
                await asyncio.sleep(0.05)
        finally:
            self.listeners -= 1

    @contextmanager
    def served(self, port: int = 0) -> Iterator[str]:
        """Serve until the block ends; gives the address."""
        config = uvicorn.Config(
            self.app, port=port, log_level="critical", ws="none", lifespan="off", timeout_graceful_shutdown=2
        )
        self.server = uvicorn.Server(config)
        thread = threading.Thread(target=self.server.run, daemon=True)
        thread.start()
        while not self.server.started:
            time.sleep(0.01)
        yield f"http://127.0.0.1:{self.server.servers[0].sockets[0].getsockname()[1]}"
        self.server.should_exit = self.server.force_exit = True  # open event streams do not hold it up
        thread.join(5)


def slice_of(phantom: Phantom, index: int) -> Response:
    hounsfield = phantom.hounsfield[index]
    rows, columns = hounsfield.shape
    headers = {"X-Rows": str(rows), "X-Columns": str(columns)}
    return Response(hounsfield.astype("<i2").tobytes(), headers=headers, media_type="application/octet-stream")


def in_order(entry: dict[str, Any]) -> tuple[int, bool, str]:
    """The place of a study in the list, as the real server has it."""
    urgency = "incomplete" if entry["state"] == "failed" else entry["urgency"]
    ranked = ("immediate", "prompt", "unsure", "incomplete", None, "routine")
    return ranked.index(urgency), bool(entry["reviews"]), entry["received_at"]


def summary(entry: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in entry.items() if name not in {"findings", "geometry", "series"}}


def problem(status: int, code: str, detail: str, remedy: str) -> Response:
    body = {"type": f"urn:{code}", "title": code, "status": status, "detail": detail, "cure": remedy, "code": code}
    return JSONResponse(body, status_code=status, media_type="application/problem+json")
