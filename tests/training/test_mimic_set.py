"""The mimic set scores a slice in its series as the bundle would serve it."""

import importlib.util
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from hemoscope.inference.calibration import SliceRule
from hemoscope.inference.predictor import Predictor
from hemoscope.inference.probabilities import StudyProbabilities
from hemoscope.testing.phantom import make_phantom
from hemoscope.volume import HounsfieldVolume

EXPERIMENTS = Path(__file__).parents[2] / "experiments"


@pytest.fixture
def mimics() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(EXPERIMENTS))  # it imports another experiment
        spec = importlib.util.spec_from_file_location("mimic_set", EXPERIMENTS / "mimic_set.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        patch.setitem(sys.modules, spec.name, module)  # dataclasses look their module up
        spec.loader.exec_module(module)
        yield module


def test_slices_without_positions_are_smoothed_as_nominally_spaced(mimics: ModuleType, predictor: Predictor) -> None:
    card = replace(predictor.bundle.card, slice_rule=SliceRule(width_mm=7.5))
    smoothing = SimpleNamespace(bundle=SimpleNamespace(card=card), engine=predictor.engine)
    phantom = make_phantom(seed=3, shape=(6, 48, 48), bleeds=frozenset({"subdural"}))
    volume = HounsfieldVolume(
        hounsfield=phantom.hounsfield.astype(np.int16),
        spacing_mm=(5.0, 4.0, 4.0),
        positions_mm=(None,) * 6,
        orientation=None,
    )
    scorer = mimics.Scorer(smoothing, volume)
    before, after = scorer.before_and_after(volume, 3)
    nominal = [5.0 * index for index in range(6)]
    served = StudyProbabilities.from_logits(scorer.logits, positions_mm=nominal, card=card).slice_probabilities[:, 0]
    raw = StudyProbabilities.from_logits(scorer.logits, positions_mm=[None] * 6, card=card).slice_probabilities[:, 0]
    assert before == after == served[3]
    assert before != raw[3]
