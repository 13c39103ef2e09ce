"""Experiment files: every unknown key is refused and named, and the record of a run reads back unchanged."""

import dataclasses
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hemoscope.errors import ConfigError
from hemoscope.training.augment import AugmentConfig
from hemoscope.training.experiment import Experiment, RunConfig, parse_experiment, read_experiment
from hemoscope.training.models.sequence import SequenceConfig
from hemoscope.training.toml_config import shipped

REPOSITORY = Path(__file__).resolve().parents[2]
SHIPPED = REPOSITORY / "src/hemoscope/experiments"

TEXT = """
name = "trial"
description = "a trial"

[run]
epochs = 3
held_out = ["p1", "p2"]

[preprocessing]
size = 64
windows = [[40, 80], [80, 200]]

[optimizer]
learning_rate = 1
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "trial.toml"
    path.write_text(TEXT)
    return path


def test_a_file_states_what_differs_from_the_defaults(file: Path) -> None:
    experiment = read_experiment(file)
    assert experiment.name == "trial"
    assert experiment.run == RunConfig(epochs=3, held_out=("p1", "p2"))
    assert [window.bounds for window in experiment.preprocessing.windows] == [(0.0, 80.0), (-20.0, 180.0)]
    assert experiment.preprocessing.crop == "head"
    assert experiment.optimizer.learning_rate == 1.0
    assert isinstance(experiment.optimizer.learning_rate, float)
    assert experiment.augment == AugmentConfig()


# A federation file names its experiment file: tests/federated/test_federation.py reads it.
EXPERIMENTS = sorted(path for path in SHIPPED.glob("*.toml") if "\nexperiment = " not in path.read_text())


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.name)
def test_every_experiment_of_the_repository_can_be_read(path: Path) -> None:
    assert read_experiment(path).name == path.stem


@given(
    st.builds(
        RunConfig,
        epochs=st.integers(1, 500),
        batch_size=st.integers(2, 64),
        seed=st.integers(0, 2**31),
        folds=st.sampled_from([0, 2, 5]),
        init=st.sampled_from(["imagenet", "none"]),
        held_out=st.lists(st.text("abc_123", min_size=1), max_size=3).map(tuple),
    ),
    st.floats(0, 1),
)
def test_the_record_of_a_run_reads_back_as_what_it_was(run: RunConfig, flip: float) -> None:
    experiment = Experiment(name="x", run=run, augment=AugmentConfig(flip=flip))
    record = json.loads(json.dumps(experiment.to_json()))
    assert parse_experiment(record, where="experiment.json") == experiment


def test_the_record_names_every_setting_resolved() -> None:
    record = Experiment(name="x").to_json()
    assert record["run"]["epochs"] == RunConfig().epochs
    assert record["preprocessing"]["windows"] == [[40.0, 80.0], [80.0, 200.0], [600.0, 2800.0]]
    assert set(record) == {field.name for field in dataclasses.fields(Experiment)}


@pytest.mark.parametrize(
    ("change", "section", "key", "value"),
    [
        ("run.epochs=7", "run", "epochs", 7),
        ("run.init=none", "run", "init", "none"),
        ('run.init="none"', "run", "init", "none"),
        ("augment.blur = 0.5", "augment", "blur", 0.5),
        ("run.held_out=['a', 'b']", "run", "held_out", ("a", "b")),
        ("loss.labels=[2, 1, 1, 1, 1, 1]", "loss", "labels", (2.0, 1.0, 1.0, 1.0, 1.0, 1.0)),
        ("preprocessing.crop=none", "preprocessing", "crop", "none"),
    ],
)
def test_a_setting_can_be_changed_on_the_command_line(
    file: Path, change: str, section: str, key: str, value: object
) -> None:
    found = getattr(getattr(read_experiment(file, [change]), section), key)
    assert found == value
    assert type(found) is type(value)


def test_a_path_of_weights_is_taken_and_its_name_alone_is_recorded(file: Path) -> None:
    experiment = read_experiment(file, ["run.init=/somewhere/private/resnet50.pth"])
    assert experiment.run.init == "/somewhere/private/resnet50.pth"
    assert experiment.to_json()["run"]["init"] == "resnet50.pth"
    assert experiment.same_training(parse_experiment(experiment.to_json(), where="record"))


def test_an_optional_table_is_read_if_present(file: Path) -> None:
    assert read_experiment(file).sequence is None
    experiment = read_experiment(file, ["sequence.hidden=48"])
    assert experiment.sequence == SequenceConfig(hidden=48)
    assert parse_experiment(json.loads(json.dumps(experiment.to_json())), where="record") == experiment
    with pytest.raises(ConfigError, match="sequence: unknown key width"):
        read_experiment(file, ["sequence.width=48"])
    with pytest.raises(ConfigError, match="sequence must be a table, got 'gru'"):
        read_experiment(file, ["sequence=gru"])


@pytest.mark.parametrize("value", ["auto", "2"])
def test_devices_are_a_number_or_the_word_auto(file: Path, value: str) -> None:
    assert str(read_experiment(file, [f"run.devices={value}"]).run.devices) == value


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ("run.workers=4", True),
        ("run.checkpoint_steps=10", True),
        ("run.crops=disk", True),
        ("run.devices=2", False),
        ("run.seed=2", False),
        ("loss.dice=0", False),
        ("description=another", False),
    ],
)
def test_a_run_may_resume_with_other_workers_but_not_with_other_training(file: Path, change: str, same: bool) -> None:
    assert read_experiment(file).same_training(read_experiment(file, [change])) == same


@pytest.mark.parametrize(
    "path", sorted((REPOSITORY / "experiments/results").glob("*/experiment.json")), ids=lambda path: path.parent.name
)
def test_records_of_earlier_versions_are_read_as_what_they_were(path: Path) -> None:
    record = json.loads(path.read_text())
    experiment = parse_experiment(record, where=path.name)
    resolved = json.loads(json.dumps(experiment.to_json()))
    for table, values in record.items():
        now = resolved[table]
        assert now == values or {name: now[name] for name in values} == values
    if "split" not in record["run"]:  # written before there were any but folds
        assert (experiment.run.split, experiment.run.devices, experiment.run.max_steps) == ("folds", 1, 0)


def test_the_record_of_the_model_that_ships_is_of_its_experiment_file() -> None:
    record = json.loads((REPOSITORY / "experiments/results/default/experiment.json").read_text())
    assert read_experiment(SHIPPED / "default.toml") == parse_experiment(record, where="experiment.json")


def test_a_network_is_read_at_the_size_of_training_unless_set_otherwise(file: Path) -> None:
    plain, larger = read_experiment(file), read_experiment(file, ["reading.size=96", "reading.extent_mm=25"])
    assert plain.reading_preprocessing == plain.preprocessing
    assert larger.reading_preprocessing == dataclasses.replace(plain.preprocessing, size=96)
    assert larger.preprocessing == plain.preprocessing
    assert larger.reading.extent_mm == 25.0


def test_later_changes_win_and_a_top_level_key_has_no_section(file: Path) -> None:
    experiment = read_experiment(file, ["run.epochs=7", "name=other", "run.epochs=8"])
    assert (experiment.name, experiment.run.epochs) == ("other", 8)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("run.epochs", r"--set needs key=value, got 'run\.epochs'"),
        ("run.epoch=3", "unknown key epoch. Known here: epochs"),
        ("trainer.epochs=3", "unknown key trainer"),
        ("preprocessing.zoom=2", "preprocessing: unknown key zoom"),
        ("name.first=x", r"--set name\.first=x: name is not a table"),
        ("run=3", "run must be a table, got 3"),
        ("run.epochs=two", "epochs must be int, got 'two'"),
        ("run.epochs=2.5", "epochs must be int, got 2.5"),
        ("run.epochs=true", "epochs must be int, got True"),
        ("augment.blur=much", "blur must be float, got 'much'"),
        ("augment.blur=true", "blur must be float, got True"),
        ("run.held_out=p1", "held_out must be a list, got 'p1'"),
        ("run.held_out=[1]", "held_out must be str, got 1"),
        ("name=3", "name must be str, got 3"),
        ("run.epochs=0", "epochs must be at least 1"),
        ("run.batch_size=1", r"batch_size must be at least 2, since batch norm .* got 1\. Set run\.batch_size=2"),
        ("run.seed=-1", "seed at least 0"),
        ("run.folds=1", r"folds must be 0 \(none\) or at least 2, got 1"),
        ("run.folds=-2", r"folds must be 0 \(none\) or at least 2, got -2"),
        ("run.init=imagnet", "init must be one of imagenet, pretrained, none, or the path .* got imagnet"),
        ("run.precision=8-true", "precision must be one of 32-true, .*, got 8-true"),
        ("run.split=study", "split must be one of folds, patient, slice, got study"),
        ("run.strategy=fsdp", "strategy must be one of auto, ddp, got fsdp"),
        ("run.crops=cloud", "crops must be one of memory, disk, got cloud"),
        ("run.devices=all", "devices must be a number or auto, got all"),
        ("run.devices=0", "devices must be at least 1, got 0"),
        ("run.devices=1.5", "devices must be int or a word, got 1.5"),
        ("run.nodes=0", "nodes must be at least 1, got 0"),
        ("run.accumulate=0", "accumulate must be at least 1, got 0"),
        ("run.max_steps=-1", "max_steps must be at least 0, got -1"),
        ("run.workers=-1", "workers must be at least 0, got -1"),
        ("run.checkpoint_steps=-5", "checkpoint_steps must be at least 0, got -5"),
        ("run.early_stop=-1", "early_stop must be at least 0, got -1"),
        ("run.validation=1.0", "validation must be 0 to below 1 and test between 0 and 1, got 1.0"),
        ("run.test=0", "validation must be 0 to below 1 and test between 0 and 1, got 0.1 and 0"),
        ("run.early_stop=2", r'early_stop needs a validation set, split = "folds" has none'),
        ("run.split=slice", r'held_out is for split = "folds": a slice split has its own test set'),
        ("network.head=linear", "head must be one of maps.*, got linear"),
        ("network.width=0", "must be positive, got 0"),
        ("network.pooled=0", "must be positive"),
        ("network.frozen_stages=-1", "frozen_stages must not be negative, got -1"),
        ("loss.labels=[1, 2]", "loss.labels needs 6 weights in the order any, .*got 2"),
        ("preprocessing.crop=skull", "crop must be one of none, head"),
        ("preprocessing.size=big", "'<=' not supported"),
        ("preprocessing.size=100", "size must be a multiple of 32, got 100"),
        ("preprocessing.neighbours=9", "neighbours 0 to 5, got .* and 9"),
        (
            "network.neighbour_init=middle",
            "neighbour_init is for neighbours, and there are none. Set preprocessing.neigh",
        ),
        ("reading.size=100", "reading.size must be a multiple of 32 up to 2048, got 100"),
        ("reading.size=-32", "reading.size must be a multiple of 32 up to 2048, got -32"),
        ("reading.extent_mm=0", "reading.extent_mm must be above 0 and at most 300, got 0"),
        ("preprocessing.windows=[[40, 0]]", "window width must be positive"),
        (f"loss.gamma={10**400}", "too large to convert to float"),
    ],
)
def test_a_wrong_setting_is_refused_and_named(file: Path, change: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        read_experiment(file, [change])


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.name)
def test_an_experiment_that_ships_is_read_by_its_bare_name(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert read_experiment(Path(path.stem)) == read_experiment(path)
    assert shipped("experiment")[path.stem] == read_experiment(path).description


def test_a_file_of_that_name_wins_over_a_shipped_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("paper").write_text('name = "mine"')
    assert read_experiment(Path("paper")).name == "mine"


@pytest.mark.parametrize("named", ["papr", "paper.toml", "folder/paper"])
def test_what_is_neither_a_file_nor_a_shipped_name_is_refused_with_the_names(
    named: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        ConfigError, match=r"no such experiment file\. .*the name of one that ships: convnext, default, "
    ):
        read_experiment(Path(named))


def test_a_file_without_a_name_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "nameless.toml"
    path.write_text("[run]\nepochs = 2\n")
    with pytest.raises(ConfigError, match=r"nameless\.toml: .*missing .* 'name'"):
        read_experiment(path)


def test_what_is_no_toml_is_refused_without_its_folder(tmp_path: Path) -> None:
    path = tmp_path / "broken.toml"
    for text in ("name = ", "name = " + "[" * 5000):
        path.write_text(text)
        with pytest.raises(ConfigError, match=r"^broken\.toml: not a readable experiment file"):
            read_experiment(path)
    with pytest.raises(ConfigError, match=r"^absent\.toml: no such experiment file\. Give its path"):
        read_experiment(tmp_path / "absent.toml")
    for path in (Path("x" * 5000), tmp_path / ("x" * 5000)):
        with pytest.raises(ConfigError, match=r"^x+: no such experiment file"):
            read_experiment(path)
