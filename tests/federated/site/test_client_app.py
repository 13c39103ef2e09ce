"""What a site replies, and what it never lets out: sentences instead of errors, histograms instead of rows."""

import json
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("flwr", reason="needs the extra: make setup-federated")

from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp

from hemoscope.errors import DataError
from hemoscope.federated.exchange.histograms import parse_histograms
from hemoscope.federated.exchange.messages import (
    ARRAYS,
    EVALUATE,
    METRICS,
    STATISTICS,
    TRAIN,
    Arrays,
    Request,
    parse_scores,
    parse_train,
    request_records,
)
from hemoscope.federated.exchange.update_checks import l2_norm
from hemoscope.federated.exchange.weights import exchange, initial_network, take
from hemoscope.federated.settings.federation import Federation
from hemoscope.federated.settings.site import Policy
from hemoscope.federated.site.client_app import FAILED, SENTENCES, UNWRITTEN, make_client_app

pytestmark = pytest.mark.usefixtures("one_thread")

Build = Callable[..., Any]
FIRST = 11


def request_of(federation: Federation, *, part: str = "split", number: int = 1, **changes: Any) -> Request:
    network = initial_network(federation.experiment, 1)
    names = exchange(network, federation.batch_norm)
    fields: dict[str, Any] = {
        "trained": take(network, names.trained),
        "statistics": take(network, names.statistics),
        "fixed": take(network, names.fixed),
        "federation": json.dumps(federation.to_json()),
        "sites": 2,
        "rounds": federation.rounds,
    }
    return Request(part=part, number=number, **{**fields, **changes})


def ask(grid: Any, request: Request, kind: str = TRAIN) -> Message:
    return ask_records(grid, request_records(request), kind)


def ask_records(grid: Any, content: RecordDict, kind: str = TRAIN) -> Message:
    (reply,) = grid.send_and_receive([Message(content, dst_node_id=FIRST, message_type=kind, group_id="1")])
    assert isinstance(reply, Message)
    return reply


def audit_of(tmp_path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (tmp_path / "site-1" / "audit.jsonl").read_text().splitlines()]


def change(new: Arrays, before: Arrays) -> Arrays:
    return {name: new[name] - before[name] for name in new}


def test_a_site_trains_and_sends_weights_a_count_and_a_loss(local_sites: Build, small_federation: Build) -> None:
    request = request_of(small_federation())
    reply = ask(local_sites(2), request)
    assert set(reply.content) == {ARRAYS, STATISTICS, METRICS}
    found = parse_train(reply.content)
    assert found.trained.keys() == request.trained.keys()
    assert l2_norm(change(found.trained, request.trained)) > 0
    assert 1 <= found.weight <= 18
    assert found.loss is not None
    assert found.loss > 0


@pytest.mark.parametrize("weighting", ["slices", "positives", "uniform"])
def test_a_site_counts_as_the_federation_says(local_sites: Build, small_federation: Build, weighting: str) -> None:
    found = parse_train(ask(local_sites(2), request_of(small_federation(weighting=weighting))).content)
    expected = {"slices": 9, "positives": range(1, 9), "uniform": 1}[weighting]
    assert found.weight in expected if isinstance(expected, range) else found.weight == expected


@pytest.mark.parametrize("batch_norm", ["local", "fixed"])
def test_statistics_that_are_not_shared_do_not_leave(
    local_sites: Build, small_federation: Build, batch_norm: str
) -> None:
    reply = ask(local_sites(2), request_of(small_federation(batch_norm=batch_norm)))
    assert set(reply.content) == {ARRAYS, METRICS}


def test_with_privacy_a_site_shortens_its_update_and_keeps_its_loss(
    local_sites: Build, small_federation: Build
) -> None:
    privacy = {"noise_multiplier": 1.0, "clipping_norm": 0.001}
    request = request_of(small_federation(batch_norm="fixed", weighting="uniform", privacy=privacy))
    found = parse_train(ask(local_sites(2), request).content)
    assert l2_norm(change(found.trained, request.trained)) == pytest.approx(0.001, rel=1e-3)
    assert found.loss is None


def test_a_site_sends_histograms_and_keeps_its_rows(
    local_sites: Build, small_federation: Build, tmp_path: Path
) -> None:
    federation = small_federation(histograms={"least_cell": 2})
    grid = local_sites(2)
    scores = parse_scores(ask(grid, request_of(federation), EVALUATE).content)
    assert {name: parse_histograms(text).level for name, text in scores.items()} == {
        "slices": "slice",
        "studies": "patient",
    }
    assert {parse_histograms(text).least_cell for text in scores.values()} == {2}
    sent = audit_of(tmp_path)[-1]
    classes = [
        side
        for text in scores.values()
        for label in json.loads(text)["labels"].values()
        for side in label.values()
        if side is not None
    ]
    assert sent["cells"] == sum(len(side["cells"]) for side in classes)
    assert 0 <= sent["cells_of_one_patient"] <= sent["cells"]
    assert "cells" not in audit_of(tmp_path)[0]
    assert not any("one_patient" in text for text in scores.values())
    work = tmp_path / "site-1" / "tiny" / "split"
    rows = (work / "scores-test.csv").read_text().splitlines()
    assert len(rows) > 1
    assert not any(row.split(",")[0] in text for row in rows[1:] for text in scores.values())
    final = parse_scores(ask(grid, request_of(federation, final=True), EVALUATE).content)
    assert set(final) == {"slices", "studies", "validation-slices", "validation-studies"}
    assert (work / "scores-validation.csv").is_file()


def test_histograms_of_a_part_leave_so_often_and_no_more(local_sites: Build, small_federation: Build) -> None:
    request = request_of(small_federation(), final=True)
    grid = local_sites(2, policy=Policy(max_evaluations=2))
    replies = [ask(grid, request, EVALUATE) for _ in range(3)]
    assert [answer.has_error() for answer in replies] == [False, False, True]
    assert replies[2].error.reason == "This site reports its scores at most 2 times a part."


def test_the_sites_least_cell_wins_over_a_finer_one(local_sites: Build, small_federation: Build) -> None:
    grid = local_sites(2, policy=Policy(least_cell=7))
    request = request_of(small_federation(histograms={"least_cell": 1}))
    scores = parse_scores(ask(grid, request, EVALUATE).content)
    assert {parse_histograms(text).least_cell for text in scores.values()} == {7}


def test_of_folds_the_rows_stay_and_the_final_network_scores_nobody(
    local_sites: Build, small_federation: Build, tmp_path: Path
) -> None:
    federation = small_federation(experiment={"run": {"split": "folds", "folds": 2}})
    grid, work = local_sites(2), tmp_path / "site-1" / "tiny"
    assert parse_scores(ask(grid, request_of(federation, part="final"), EVALUATE).content) == {}
    assert not (work / "final" / "scores.csv").exists()
    reported = parse_scores(ask(grid, request_of(federation, part="fold-1"), EVALUATE).content)
    rows = (work / "fold-1" / "scores.csv").read_text().splitlines()
    assert len(rows) == 1 + 9  # three of six patients, three slices each
    assert not any(row.split(",")[0] in text for row in rows[1:] for text in reported.values())


def test_a_round_that_is_asked_again_begins_with_the_batch_norm_that_it_began_with(
    local_sites: Build, small_federation: Build, tmp_path: Path
) -> None:
    federation = small_federation(batch_norm="local", rounds=3)
    grid = local_sites(2)
    ask(grid, request_of(federation, number=1))
    first, again = (parse_train(ask(grid, request_of(federation, number=2)).content) for _ in range(2))
    assert all((first.trained[name] == again.trained[name]).all() for name in first.trained)
    kept = (tmp_path / "site-1" / "tiny" / "split" / "local.safetensors").read_bytes()
    fresh = local_sites(2, folder=tmp_path / "fresh")  # without the first round, its batch norm is the server's
    other = parse_train(ask(fresh, request_of(federation, number=2)).content)
    assert not all((first.trained[name] == other.trained[name]).all() for name in first.trained)
    assert kept != (tmp_path / "fresh" / "site-1" / "tiny" / "split" / "local.safetensors").read_bytes()


@pytest.mark.parametrize(
    ("policy", "settings", "reason"),
    [
        (Policy(secure_aggregation=True), {}, "This site trains with secure aggregation alone."),
        (Policy(privacy=True), {}, "This site trains with differential privacy alone."),
        (Policy(min_sites=3), {}, "This site trains with at least 3 sites alone."),
        (Policy(max_epochs=1), {"local_epochs": 2}, "This site trains at most 1 epochs a round."),
        (Policy(allow_experiments=("paper",)), {}, "This site does not allow this experiment."),
    ],
)
@pytest.mark.parametrize("kind", [TRAIN, EVALUATE])
def test_a_policy_refuses_in_its_own_words(
    local_sites: Build, small_federation: Build, policy: Policy, settings: dict[str, Any], reason: str, kind: str
) -> None:
    reply = ask(local_sites(2, policy=policy), request_of(small_federation(**settings)), kind)
    assert (reply.has_error(), reply.error.reason) == (True, reason)


def test_an_update_in_the_clear_is_refused_where_masks_were_promised(
    local_sites: Build, small_federation: Build
) -> None:
    federation = small_federation(secure_aggregation={"enabled": True})
    reply = ask(local_sites(3, policy=Policy(secure_aggregation=True)), request_of(federation, sites=3))
    assert reply.error.reason == "The federation's settings forbid a round without secure aggregation."


@pytest.mark.parametrize("kind", [TRAIN, EVALUATE])
def test_a_message_that_is_no_request_gets_one_sentence(local_sites: Build, kind: str) -> None:
    assert ask_records(local_sites(2), RecordDict(), kind).error.reason == SENTENCES[3][1]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"part": "fold-0"}, SENTENCES[3][1]),
        ({"part": "../../elsewhere"}, SENTENCES[3][1]),
        ({"rounds": 9}, SENTENCES[3][1]),
        ({"trained": {}}, SENTENCES[3][1]),
        ({"federation": "{}"}, SENTENCES[2][1]),
    ],
)
def test_a_request_that_cannot_be_met_gets_one_sentence(
    local_sites: Build, small_federation: Build, changes: dict[str, Any], sentence: str
) -> None:
    request = replace(request_of(small_federation()), **changes)
    assert ask(local_sites(2), request).error.reason == sentence


SECRET = "/home/clinic/patient-4711.dcm"


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (DataError(SECRET), SENTENCES[0][1]),
        (KeyError(SECRET), FAILED),
        (FileNotFoundError(2, "No such file", SECRET), FAILED),
        (MemoryError(SECRET), FAILED),
    ],
)
def test_no_text_of_an_error_leaves_a_site_or_enters_its_log(
    error: Exception, sentence: str, caplog: pytest.LogCaptureFixture, local_grid: Build
) -> None:
    def nowhere(_context: Context) -> Any:
        raise error

    with caplog.at_level(logging.ERROR):
        reply = ask_records(local_grid({FIRST: make_client_app(nowhere)}), RecordDict())
    assert reply.error.reason == sentence
    assert "4711" not in repr(reply)
    assert type(error).__name__ in caplog.text
    if not isinstance(error, DataError):  # our own errors name no patient; what others say nobody knows
        assert "4711" not in caplog.text


def test_what_fails_in_the_middle_of_a_round_is_answered_and_written_down(
    local_sites: Build, small_federation: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_args: Any, **_named: Any) -> None:
        raise RuntimeError(SECRET)

    monkeypatch.setattr("hemoscope.federated.site.site_task.train_round", broken)
    reply = ask(local_sites(2), request_of(small_federation()))
    assert reply.error.reason == FAILED
    last = audit_of(tmp_path)[-1]
    assert (last["direction"], last["kind"], last["error"], last["records"]) == ("out", "train", FAILED, [])
    assert "4711" not in (tmp_path / "site-1" / "audit.jsonl").read_text()


def test_every_message_is_written_down_before_it_leaves(
    local_sites: Build, small_federation: Build, tmp_path: Path
) -> None:
    grid = local_sites(2)
    reply = ask(grid, request_of(small_federation()))
    came, left = audit_of(tmp_path)
    assert (came["direction"], came["kind"], came["round"], came["run"]) == ("in", "train", "1", "7")
    assert [record["name"] for record in came["records"]] == ["arrays", "statistics", "fixed", "config"]
    assert {record["name"]: record["sha256"] for record in left["records"]} == {
        name: record.object_id for name, record in reply.content.items()
    }
    text = (tmp_path / "site-1" / "audit.jsonl").read_text()
    assert str(tmp_path) not in text
    assert not any(f"p{number}_" in text for number in range(12))


def test_where_the_audit_file_cannot_be_written_nothing_leaves(
    local_sites: Build, small_federation: Build, tmp_path: Path
) -> None:
    grid = local_sites(2)
    (tmp_path / "site-1" / "audit.jsonl").mkdir()
    reply = ask(grid, request_of(small_federation()))
    assert (reply.has_content(), reply.error.reason) == (False, UNWRITTEN)


def test_an_app_of_a_site_is_one_of_flowers() -> None:
    assert isinstance(make_client_app(lambda _context: None), ClientApp)  # type: ignore[arg-type,return-value]


def test_the_page_of_what_leaves_a_site_has_every_sentence_and_record() -> None:
    page = (Path(__file__).resolve().parents[3] / "docs" / "reference" / "federated-audit.md").read_text()
    for sentence in (FAILED, UNWRITTEN, *(sentence for _, sentence in SENTENCES)):
        assert f"| {sentence} |" in page
    for record in (ARRAYS, STATISTICS, METRICS, "scores", "secaggplus_configs", "masked_params"):
        assert f"`{record}`" in page
