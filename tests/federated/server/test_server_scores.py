"""What the server makes of the sites' scores: whom it suspects of flipped labels."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

pytest.importorskip("flwr", reason="needs the extra: make setup-federated")

from flwr.app import Context, Error, Message, RecordDict
from flwr.supercore.task_identity import TaskIdentity

from hemoscope.federated.exchange.histograms import score_histograms
from hemoscope.federated.exchange.messages import SLICES, STUDIES, Request, score_records
from hemoscope.federated.server.server_scores import SiteScores, ask_scores, below_chance
from hemoscope.labels import LABELS
from hemoscope.training.run_scores import LevelScores


def scores(seed: int, *, apart: float, rows: int = 300) -> SiteScores:
    """A site's slices, five a patient, whose positives score so much higher."""
    rng = np.random.default_rng(seed)
    truth = (rng.random((rows, len(LABELS))) < 0.4).astype(np.float64)
    logits = rng.normal(size=truth.shape) + apart * truth
    patients = tuple(f"p{row // 5}" for row in range(rows))
    found = score_histograms(LevelScores(logits=logits, truth=truth, patients=patients), level="slice", least_cell=5)
    return {SLICES: found}


def test_a_site_whose_labels_say_the_opposite_is_suspected() -> None:
    found = below_chance({1: scores(1, apart=1.0), 2: scores(2, apart=-1.0), 3: scores(3, apart=1.5)})
    assert list(found) == [2]
    assert "below chance there (AUROC 0.2" in found[2][0]


def test_a_model_that_knows_nothing_yet_makes_nobody_suspect() -> None:
    assert below_chance({site: scores(site, apart=0.0) for site in range(1, 13)}) == {}


def test_a_site_that_tells_too_little_is_not_suspected() -> None:
    assert below_chance({1: {}, 2: {STUDIES: scores(2, apart=-1.0)[SLICES]}}) == {}


def test_what_sites_send_instead_of_scores_is_left_out_and_told(local_grid: Callable[..., Any]) -> None:
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 7, 1, 1
    told = scores(1, apart=1.0)[SLICES].to_json()
    answers: dict[int, RecordDict | Error] = {
        11: score_records({SLICES: told}),
        12: score_records({STUDIES: told}),
        13: score_records({SLICES: "{}"}),
        14: RecordDict(),
        15: Error(6, "This site does not allow this experiment."),
        16: score_records({SLICES: told}),
    }
    grid = local_grid(dict.fromkeys(answers, answering(answers)))
    grid.drop = lambda node, _kind, _stage: node == 16
    request = Request(
        trained={}, statistics={}, fixed={}, federation="{}", part="split", number=3, rounds=3, sites=6, final=True
    )
    found, refused = ask_scores(grid, list(answers), request, timeout=5.0)
    assert list(found) == [11]
    assert found[11][SLICES].to_json() == told
    assert sorted(refused) == [12, 13, 14, 15, 16]
    assert "studies of the level slice" in refused[12]
    assert "histograms" in refused[13]
    assert "lacks its scores" in refused[14]
    assert refused[15] == "This site does not allow this experiment."
    assert refused[16] == "no answer in time"


def answering(answers: dict[int, RecordDict | Error]) -> Callable[[Message, Context], Message]:
    def answer(message: Message, _context: Context) -> Message:
        content: Any = answers[message.metadata.dst_node_id]
        return Message(content, reply_to=message)

    return answer
