"""How weak suspicions and contradictory answers are explained, and what a phone shows first."""

from typing import Any

import pytest
from reading_page import OpenPage, opened, wait_for_slice

from hemoscope.testing.phantom import Phantom


def weak(fake: Any, phantom: Phantom) -> str:
    """A study whose subdural is suspected at 0.18 of 0.15, on no slice."""
    study_id = fake.fake.add(phantom, urgency="unsure")
    entry = fake.fake.studies[study_id].entry
    study = entry["findings"]["studies"][0]
    for finding in study["findings"]:
        finding["present"] = finding["label"] in {"any", "subdural"}
        if finding["label"] == "subdural":
            finding.update(probability=0.18, threshold=0.15)
    place = entry["geometry"]["labels"].index("subdural")
    for row in entry["geometry"]["probabilities"]:
        row[place] = min(row[place], 0.02)
    entry["geometry"]["key_slices"]["subdural"] = [1, 2]
    fake.fake.change(study_id, suspected=["any", "subdural"])
    return str(study_id)


def test_a_weak_suspicion_looks_weak_and_leads_to_no_slice_that_does_not_show_it(
    fake: Any, open_page: OpenPage, asymmetric: Phantom
) -> None:
    page = opened(open_page, f"{fake.url}/studies/{weak(fake, asymmetric)}")
    finding = page.locator(".finding[data-label=subdural]")
    assert "0.18" in finding.inner_text()
    assert "\u2265 0.15" in finding.inner_text()
    here = int(page.locator("#view").get_attribute("data-slice") or 0)
    finding.locator(".finding-head").click()
    finding.get_by_text("No slice shows it: the highest").wait_for()
    wait_for_slice(page, here)
    assert "is about the study as a whole" in page.locator(".verdict").inner_text()
    page.locator(".finding[data-label=any] .finding-head").click()
    page.locator(".finding[data-label=any]").get_by_text("from all slices together, and can exceed").wait_for()


def test_a_study_opens_without_heat_if_no_slice_shows_what_is_suspected(
    fake: Any, open_page: OpenPage, asymmetric: Phantom
) -> None:
    study_id = weak(fake, asymmetric)
    geometry = fake.fake.studies[study_id].entry["geometry"]
    for row in geometry["probabilities"]:
        row[:] = [0.01] * len(row)
    page = opened(open_page, f"{fake.url}/studies/{study_id}")
    assert int(page.locator("#view").get_attribute("data-slice") or 0) == geometry["slices"] // 2
    assert page.locator("#heat").get_attribute("aria-pressed") == "false"


def test_a_weak_established_finding_is_called_weak(fake: Any, open_page: OpenPage, asymmetric: Phantom) -> None:
    study_id = fake.fake.add(asymmetric)
    for finding in fake.fake.studies[study_id].entry["findings"]["studies"][0]["findings"]:
        if finding["label"] == "intraparenchymal":
            finding.update(probability=0.3, threshold=0.23)
    page = opened(open_page, f"{fake.url}/studies/{study_id}")
    assert page.locator(".finding[data-label=intraparenchymal] .status").inner_text() == "Weakly suspected"
    assert page.locator(".finding[data-label=any] .status").inner_text() == "Suspected"
    page.keyboard.press("?")
    assert "A dashed frame: not established" in page.locator("#help").inner_text()


def test_answers_that_contradict_each_other_are_named(fake: Any, open_page: OpenPage, asymmetric: Phantom) -> None:
    page = opened(open_page, f"{fake.url}/studies/{fake.fake.add(asymmetric)}")
    trouble = page.locator(".contradiction")
    for label, key in (("any", "d"), ("subdural", "a")):
        assert trouble.is_hidden()
        page.locator(f".finding[data-label={label}] .finding-head").click()
        page.keyboard.press(key)
        page.locator(f".finding[data-label={label}] .said").wait_for()
    page.get_by_text("no hemorrhage, but Subdural").wait_for()
    page.locator(".finding[data-label=subdural]").get_by_role("button", name="Take back").click()
    trouble.wait_for(state="hidden")


@pytest.mark.parametrize("width", [390, 768])
def test_a_small_screen_shows_verdict_and_finding_first_and_brings_a_key_slice_into_sight(
    fake: Any, open_page: OpenPage, asymmetric: Phantom, width: int
) -> None:
    url = f"{fake.url}/studies/{fake.fake.add(asymmetric)}"
    page = opened(open_page, url, viewport={"width": width, "height": 844})
    brief, stage = page.locator("#brief").bounding_box(), page.locator("#stage").bounding_box()
    assert brief
    assert stage
    assert "Immediate. Any hemorrhage 0.91, Suspected" in page.locator("#brief").inner_text()
    assert brief["y"] + brief["height"] <= 160, "a compact head"
    assert stage["height"] >= 300
    finding = page.locator(".finding[data-label=subdural]")
    finding.locator(".finding-head").click()
    assert "Subdural 0.67" in page.locator("#brief").inner_text()
    finding.locator(".key-slice").last.click()
    page.wait_for_function(
        "() => { const { top, bottom } = document.querySelector('#stage').getBoundingClientRect();"
        " return top >= -1 && bottom <= innerHeight + 1; }"
    )
    assert page.evaluate("document.documentElement.scrollWidth") == width


def test_the_report_opens_in_a_tab_beside_its_downloads(fake: Any, open_page: OpenPage, asymmetric: Phantom) -> None:
    page = opened(open_page, f"{fake.url}/studies/{fake.fake.add(asymmetric)}")
    with page.context.expect_page() as opening:
        page.get_by_role("link", name="Report", exact=True).click()
    opening.value.get_by_role("heading", name="Report").wait_for()
    assert page.get_by_role("link", name="HTML").get_attribute("download") is not None
