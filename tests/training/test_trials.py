"""The protocol of trials: the decision follows the rule, a record is complete, and the table is that of the records."""

import importlib.util
import json
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest

EXPERIMENTS = Path(__file__).resolve().parents[2] / "experiments"
DEFAULT = EXPERIMENTS / "results" / "default"
LOGITS = ["logit_any", "logit_intraventricular"]


@pytest.fixture(scope="module")
def protocol() -> Iterator[ModuleType]:
    """``experiments/trials.py`` as a module, with few bootstrap rounds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(EXPERIMENTS))  # it imports another experiment
        spec = importlib.util.spec_from_file_location("trials", EXPERIMENTS / "trials.py")
        assert spec
        assert spec.loader
        module = importlib.util.module_from_spec(spec)
        patch.setitem(sys.modules, spec.name, module)  # dataclasses look their module up
        spec.loader.exec_module(module)
        patch.setattr(module, "ROUNDS", 100)
        yield module


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., Path]:
    """``make_run(towards={"logit_any": 0.5}, folds=, changes=)``: the shipped model's record with changed scores.

    ``towards`` moves the raw scores of a column towards the truth, or away if negative.
    """

    def build(
        *,
        towards: dict[str, float] | None = None,
        folds: tuple[str, ...] = ("fold-0", "fold-1"),
        settings: dict[str, dict[str, object]] | None = None,
    ) -> Path:
        run = tmp_path / "run"
        shutil.rmtree(run, ignore_errors=True)
        run.mkdir()
        record = json.loads((DEFAULT / "experiment.json").read_text())
        for table, values in (settings or {}).items():
            record[table] |= values
        (run / "experiment.json").write_text(json.dumps(record))
        shutil.copyfile(DEFAULT / "versions.json", run / "versions.json")
        truth = pd.read_csv(DEFAULT / "slices.csv").set_index("image_id")
        for fold in folds:
            (run / fold).mkdir()
            scores = pd.read_csv(DEFAULT / fold / "scores.csv")
            for column, amount in (towards or {}).items():
                label = column.removeprefix("logit_")
                known = truth.loc[scores["image_id"], label].to_numpy()
                scores[column] += amount * np.where(known == 1, 1.0, -1.0)
            scores.to_csv(run / fold / "scores.csv", index=False)
            (run / fold / "part.json").write_text(json.dumps({"seconds": 660.0}))
        return run

    return build


def verdict(protocol: ModuleType, run: Path, folder: Path) -> str:
    protocol.add(run, "one", baseline="default", note="", trials=folder)
    found: str = protocol.compare("one", folder).verdict
    return found


def test_the_same_scores_are_not_kept(protocol: ModuleType, make_run: Callable[..., Path], tmp_path: Path) -> None:
    assert verdict(protocol, make_run(), tmp_path / "trials") == "not kept"


def test_better_scores_of_any_are_kept(protocol: ModuleType, make_run: Callable[..., Path], tmp_path: Path) -> None:
    assert verdict(protocol, make_run(towards={"logit_any": 0.5}), tmp_path / "trials") == "kept: any"


def test_a_rare_type_is_enough_but_a_frequent_one_is_not(
    protocol: ModuleType, make_run: Callable[..., Path], tmp_path: Path
) -> None:
    both = {"logit_any": 0.001, "logit_intraventricular": 1.0}
    assert verdict(protocol, make_run(towards=both), tmp_path / "trials") == "kept: intraventricular"
    frequent = {"logit_any": 0.001, "logit_intraparenchymal": 1.0}
    assert verdict(protocol, make_run(towards=frequent), tmp_path / "trials") == "not kept"


def test_a_rare_type_does_not_make_up_for_worse_scores_of_any(
    protocol: ModuleType, make_run: Callable[..., Path], tmp_path: Path
) -> None:
    run = make_run(towards={"logit_any": -0.5, "logit_intraventricular": 1.0})
    assert verdict(protocol, run, tmp_path / "trials") == "not kept"


def test_one_fold_alone_decides_nothing(protocol: ModuleType, make_run: Callable[..., Path], tmp_path: Path) -> None:
    run = make_run(towards={"logit_any": 1.0}, folds=("fold-0",))
    assert verdict(protocol, run, tmp_path / "trials") == "open: fold-0 alone"


def test_a_trial_can_be_the_baseline_of_the_next(
    protocol: ModuleType, make_run: Callable[..., Path], tmp_path: Path
) -> None:
    better, folder = make_run(towards={"logit_any": 0.5}), tmp_path / "trials"
    protocol.add(better, "first", baseline="default", note="", trials=folder)
    protocol.add(better, "second", baseline="first", note="", trials=folder)
    assert protocol.compare("second", folder).verdict == "not kept"


def test_study_scores_of_a_sequence_network_are_used(
    protocol: ModuleType, make_run: Callable[..., Path], tmp_path: Path
) -> None:
    run, folder = make_run(), tmp_path / "trials"
    truth = pd.read_csv(DEFAULT / "slices.csv").groupby("patient_id").max()
    for fold in ("fold-0", "fold-1"):
        patients = sorted(set(pd.read_csv(run / fold / "scores.csv")["patient_id"]), reverse=True)
        perfect = {f"logit_{name}": truth.loc[patients, name].to_numpy() for name in protocol._NAMES}
        pd.DataFrame({"patient_id": patients, **perfect}).to_csv(run / fold / "studies.csv", index=False)
    protocol.add(run, "one", baseline="default", note="", trials=folder)
    levels = protocol.compare("one", folder).levels
    assert levels["patient"].labels["any"]["auroc"].first == 1.0
    assert levels["slice, raw"].labels["any"]["auroc"].difference == 0.0


def test_other_images_are_refused_with_the_remedy(
    protocol: ModuleType, make_run: Callable[..., Path], tmp_path: Path
) -> None:
    run = make_run()
    shutil.copyfile(DEFAULT / "fold-2" / "scores.csv", run / "fold-1" / "scores.csv")
    with pytest.raises(SystemExit, match="other images than default"):
        protocol.add(run, "one", baseline="default", note="", trials=tmp_path / "trials")


def test_a_stored_trial_is_not_replaced_by_itself(
    protocol: ModuleType, make_run: Callable[..., Path], tmp_path: Path
) -> None:
    folder = tmp_path / "trials"
    protocol.add(make_run(), "one", baseline="default", note="", trials=folder)
    with pytest.raises(SystemExit, match="is a trial already"):
        protocol.add(folder / "one", "one", baseline="default", note="", trials=folder)
    assert (folder / "one" / "fold-0" / "scores.csv").is_file()


def test_the_table_says_what_differs_and_what_it_cost(
    protocol: ModuleType, make_run: Callable[..., Path], tmp_path: Path
) -> None:
    folder = tmp_path / "trials"
    run = make_run(settings={"run": {"seed": 3, "workers": 2}, "preprocessing": {"neighbours": 1}})
    protocol.add(run, "one", baseline="default", note="as merged", trials=folder)
    row = protocol.write_table(folder).splitlines()[-1]
    assert row.startswith("| one | default | preprocessing.neighbours 1; as merged | 3 | 11 | ")
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) < 400_000


def test_the_stored_table_is_that_of_the_stored_records(protocol: ModuleType) -> None:
    folder = protocol.TRIALS
    stored = json.loads((folder / "table.json").read_text())
    assert [one["name"] for one in stored] == sorted(path.parent.name for path in folder.glob("*/trial.json"))
    assert (folder / "table.md").read_text() == protocol.as_markdown(stored)
    for one in stored:  # the intervals need all rounds; the scores do not
        again = protocol.as_json(protocol.compare(one["name"]))
        for level in protocol.LEVELS:
            found, known = again["levels"][level]["any"]["auroc"], one["levels"][level]["any"]["auroc"]
            assert (found["trial"], found["baseline"]) == (known["trial"], known["baseline"])


def test_a_sequence_network_that_is_switched_off_is_listed(protocol: ModuleType) -> None:
    plain = json.loads((DEFAULT / "experiment.json").read_text())
    assert plain.get("sequence") is None
    read = {**plain, "sequence": {"hidden": 32}}
    assert protocol.changes(plain, read) == {"sequence": "null"}
    assert protocol.changes(read, plain)["sequence.hidden"] == "32"
    assert "sequence" not in protocol.changes(read, plain)
    assert protocol.changes(plain, plain) == {}
