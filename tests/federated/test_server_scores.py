"""What the server makes of the sites' scores: whom it suspects of flipped labels."""

import numpy as np
import pytest

pytest.importorskip("flwr", reason="needs the extra: make setup-federated")

from hemoscope.federated.histograms import score_histograms
from hemoscope.federated.messages import SLICES, STUDIES
from hemoscope.federated.server_scores import SiteScores, below_chance
from hemoscope.labels import LABELS
from hemoscope.training.run_scores import Scores


def scores(seed: int, *, apart: float, rows: int = 300) -> SiteScores:
    """A site's slices, five a patient, whose positives score so much higher."""
    rng = np.random.default_rng(seed)
    truth = (rng.random((rows, len(LABELS))) < 0.4).astype(np.float64)
    logits = rng.normal(size=truth.shape) + apart * truth
    patients = tuple(f"p{row // 5}" for row in range(rows))
    found = score_histograms(Scores(logits=logits, truth=truth, patients=patients), level="slice", least_cell=5)
    return {SLICES: found}


def test_a_site_whose_labels_say_the_opposite_is_suspected() -> None:
    found = below_chance({1: scores(1, apart=1.0), 2: scores(2, apart=-1.0), 3: scores(3, apart=1.5)})
    assert list(found) == [2]
    assert "below chance there (AUROC 0.2" in found[2][0]


def test_a_model_that_knows_nothing_yet_makes_nobody_suspect() -> None:
    assert below_chance({site: scores(site, apart=0.0) for site in range(1, 13)}) == {}


def test_a_site_that_tells_too_little_is_not_suspected() -> None:
    assert below_chance({1: {}, 2: {STUDIES: scores(2, apart=-1.0)[SLICES]}}) == {}
