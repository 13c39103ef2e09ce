"""Tuning chooses the quantiles of unsure studies again, and says where there were too few studies for it."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hemoscope.evaluation.tuned_bundle import TuningChoices, tune_bundle
from hemoscope.inference.bundle import ModelBundle
from hemoscope.inference.calibration import ConformalSets, UnsureRule
from hemoscope.labels import LABELS

RULE = UnsureRule(alpha=0.1, sets=(ConformalSets(alpha=0.1, low=0.3, high=0.7),))
Files = tuple[Path, Path]


@pytest.fixture
def write(tmp_path: Path) -> Callable[[int], Files]:
    """``write(negatives)``: predictions and labels of 30 studies of two slices, of which some have no hemorrhage."""

    def build(negatives: int) -> Files:
        positive = (np.arange(60) // 2 >= negatives).astype(int)
        random = np.random.default_rng(0)
        rows = [
            (f"i{i},p{i // 2},{','.join([f'{one:.6f}'] * 6)}", f"i{i},p{i // 2},{','.join([str(known)] * 6)}")
            for i, (one, known) in enumerate(
                zip(1 / (1 + np.exp(-(2 * positive - 1 + random.normal(size=60)))), positive, strict=True)
            )
        ]
        header = ",".join(["image_id", "patient_id", *LABELS])
        files = tmp_path / "p.csv", tmp_path / "l.csv"
        for file, column in zip(files, zip(*rows, strict=True), strict=True):
            file.write_text("\n".join([header, *column]) + "\n")
        return files

    return build


@pytest.mark.parametrize(("negatives", "few"), [(14, False), (6, True)])
def test_the_note_and_the_record_say_if_the_quantiles_were_only_converted(
    tmp_path: Path, write: Callable[[int], Files], loaded_bundle: ModelBundle, negatives: int, few: bool
) -> None:
    bundle = replace(loaded_bundle, card=replace(loaded_bundle.card, unsure=RULE))
    choices = TuningChoices(group_column="patient_id", study_column="patient_id", rounds=20)
    tuned = tune_bundle(bundle, *write(negatives), tmp_path / "new", choices)
    (one,) = tuned.record["levels"]["study"]["unsure"]
    card = tuned.bundle.card
    assert card.unsure is not None
    assert (one["alpha"], one["low"], one["high"]) == (0.1, card.unsure.used.low, card.unsure.used.high)
    assert (one["kept"] is not None) == few
    assert ("alpha 0.1): too few studies to choose them, so they were only converted" in card.description) == few
    assert "unsure" not in tuned.record["levels"]["slice"]
