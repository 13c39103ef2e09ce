"""A round of faults counts what was lost and what nobody uploaded, and one that is survived counts nothing."""

import random

import pytest

from .faults import faults_of
from .rounds import _telling
from .site import running_site, wait_for


@pytest.mark.timeout(600)
def test_a_killed_worker_loses_nothing_and_a_study_that_is_gone_is_counted() -> None:
    with running_site(postgresql=False, faketime=False, chance=random.Random(1)) as site:
        assert wait_for(site.ready, 120)
        with faults_of(site)["kill -9 of workers"](site):
            site.upload()
        count = site.settle()
        assert (len(site.accepted), count.lost, count.doubled) == (3, 0, 0)
        address = f"{site.servers[0].url}/api/v1"
        gone = min(site.accepted)
        assert site.client.delete(f"{address}/studies/{gone}").status_code == 204
        assert site.settle().lost == 1
        site.accepted -= {gone, max(site.accepted)}
        count = site.settle()
        assert (count.lost, count.doubled) == (0, 1), "a study that nobody uploaded"
        assert site.close().clean


def test_the_requests_of_the_harness_are_left_out() -> None:
    request = "2026-01-01 00:00:00,000 INFO hemoscope.access: 127.0.0.1 GET /ready 200 1 ms\n"
    assert _telling(f"began\n{request * 9999}ended\n") == "began\nended\n"
