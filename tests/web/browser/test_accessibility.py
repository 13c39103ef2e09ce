"""axe-core finds no serious fault on any page, in light and in dark."""

from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from accessibility import faults

from hemoscope.testing.phantom import Phantom

if TYPE_CHECKING:
    from playwright.sync_api import Page

OpenPage = Callable[..., "Page"]


@pytest.fixture
def busy(fake: Any, asymmetric: Phantom) -> Any:
    """A room with every kind of row."""
    fake.fake.login_required = True  # several readers
    marks: dict[str, Any] = {"claim": {"by": "agnes", "since": "2026-03-01T10:32:00+00:00"}}
    marks["reviews"] = [{"by": "local", "at": "2026-03-01T10:32:00+00:00"}]
    for urgency in ("immediate", "prompt", "unsure", "routine"):
        feedback = {"agree": 1} if urgency == "routine" else {}
        study_id = fake.fake.add(asymmetric, urgency=urgency, feedback=feedback, **(marks if feedback else {}))
    answers = {"any": "corrected", "intraparenchymal": "agree", "subdural": "corrected"}
    fake.fake.add(asymmetric, verdicts=answers, readers=["agnes"])
    fake.fake.add_series(study_id, asymmetric, "5 mm, kernel H60s")
    fake.fake.add(asymmetric, urgency=None, state="failed", error_code="not_ct", error_message="No CT was found.")
    fake.fake.add(asymmetric, urgency=None, state="scoring", stage_done=3, stage_total=12, waiting=timedelta(seconds=2))
    return fake


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_worklist_has_no_serious_fault(busy: Any, open_page: OpenPage, scheme: str) -> None:
    page = open_page(busy.url, color_scheme=scheme)
    page.wait_for_selector("#studies tbody tr")
    assert not faults(page)
    page.locator("tr[data-state=failed] .row-delete").click()
    assert not faults(page)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_empty_worklist_has_no_serious_fault(fake: Any, open_page: OpenPage, scheme: str) -> None:
    page = open_page(fake.url, color_scheme=scheme)
    page.wait_for_selector("#empty:visible")
    assert not faults(page)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("urgency", ["immediate", "prompt", "unsure", "routine"])
def test_the_reading_page_has_no_serious_fault(busy: Any, open_page: OpenPage, scheme: str, urgency: str) -> None:
    study_id = next(key for key, study in busy.fake.studies.items() if study.entry["urgency"] == urgency)
    page = open_page(f"{busy.url}/studies/{study_id}", color_scheme=scheme)
    page.wait_for_selector(".finding")
    page.locator(".finding[data-label=subdural] .finding-head").click()
    page.locator(".finding[data-label=subdural]").get_by_role("button", name="Disagree").click()
    page.locator(".finding[data-label=subdural] .said").wait_for()
    page.get_by_role("button", name="Add slices or a note").click()
    assert not faults(page)
    page.keyboard.press("Escape")
    page.locator(".user-name").click()
    assert not faults(page)
    page.keyboard.press("Escape")
    page.keyboard.press("x")  # another series beside it, where there is one
    assert not faults(page)
    page.get_by_role("button", name="Model card").click()
    assert not faults(page)


@pytest.mark.parametrize("width", [390, 768])
def test_small_screens_have_no_serious_fault_beside_contradictory_answers(
    busy: Any, open_page: OpenPage, width: int
) -> None:
    study_id = next(key for key, study in busy.fake.studies.items() if study.entry["urgency"] == "immediate")
    page = open_page(f"{busy.url}/studies/{study_id}", viewport={"width": width, "height": 844})
    page.wait_for_selector(".finding")
    for label, key in (("any", "d"), ("intraparenchymal", "a")):
        page.locator(f".finding[data-label={label}] .finding-head").click()
        page.keyboard.press(key)
        page.locator(f".finding[data-label={label}] .said").wait_for()
    page.locator(".contradiction").wait_for()
    assert not faults(page)
    page.goto(busy.url)
    page.wait_for_selector("#studies tbody tr")
    assert not faults(page)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_login_has_no_serious_fault(fake: Any, open_page: OpenPage, scheme: str) -> None:
    fake.fake.login_required = True
    page = open_page(f"{fake.url}/login", color_scheme=scheme)
    assert not faults(page)
