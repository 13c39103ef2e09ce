"""Reports take seconds to draw: one user cannot keep the others from theirs."""

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor, as_completed

import pytest
from fastapi.testclient import TestClient

from hemoscope.store.refusals import refusal
from hemoscope.web.routes import reports

from .conftest import bearer

PATH = f"/api/v1/studies/{'0' * 32}/report.pdf"


def test_one_user_waits_for_few_reports_and_others_for_theirs(
    guarded: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = threading.Event()

    def draw(*_arguments: object, **_options: object) -> None:
        drawn.wait(60)
        raise refusal("no_such_study", "it is gone")

    monkeypatch.setattr(reports, "_content", draw)
    with ThreadPoolExecutor(8) as pool:
        try:
            asked = [pool.submit(guarded.get, PATH, headers=bearer("reader")) for _ in range(6)]
            first = as_completed(asked, timeout=60)
            refused = [next(first).result() for _ in range(2)]
            other = pool.submit(guarded.get, PATH, headers=bearer("admin"))
        finally:
            drawn.set()
        statuses = Counter(one.result().status_code for one in asked)
        assert other.result().status_code == 404
    assert statuses == {404: reports.REPORTS_OF_ONE, 429: 2}
    assert {one.json()["code"] for one in refused} == {"too_many_reports_of_user"}
    assert guarded.get(PATH, headers=bearer("reader")).status_code == 404, "the places are free again"
