"""Every number of the paper stands once beside the recomputed one, with the status that a reader would give it."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sklearn.metrics as reference
from numpy.typing import NDArray
from PIL import Image

from hemoscope.errors import DataError
from hemoscope.evaluation.published_paper import PLACES, PUBLISHED, PublishedNumber, Source
from hemoscope.evaluation.recomputed_numbers import (
    Recomputed,
    at_printed_thresholds,
    from_labels,
    from_recipe,
    from_timing,
    point_intervals,
)
from hemoscope.evaluation.reproduction import NEEDS, PaperData, Status, compared, reproduce_paper
from hemoscope.labels import LABELS

Array = NDArray[np.float64]
BY_ID = {number.id: number for number in PUBLISHED}
# Table II to V as the paper prints them, typed in once more from the paper's rows.
TABLES = {
    "Table II": "965 998 985 990 979 978 914 913 900 864 811 905 833 682 765 846 716 722",
    "Table III": "965 964 833 809 914 927",
    "Table IV": "000 001 002 004 008 018 045 122 345 828 500 550 600 650 700 750 800 850 900 950 "
    "973 966 959 950 939 925 906 877 839 763 595 890 906 921 934 945 954 960 964 961",
    "Table V": "008 105 035 088 125 034 939 840 879 922 794 875 934 998 976 984 975 969",
}
TEXT = {
    "III": (752803, 6, 85.7, 10.1, 4.2, 4, 512, 10, 75),
    "IV-A": (40, 80, 80, 200, 600, 2800),
    "IV-B": (224, 3, 7, 2048, 256, 6),
    "Equation 1": (6, 1, 2, 1, 1, 1, 1),
    "IV-C": (1e-5, 16, 10, 48, 90, 32),
    "V-A": (98.3, 93.3, 0.76),
    "V-C": (0.985,),
    "VI": (366, 2.5),
    "Abstract, VII": (86, 0.875, 0.053),
}
TIMING: dict[str, Any] = {
    "statement": "A network.",
    "network": {"side": 7, "features": 2048},
    "headline": {"forward_cpu_ms": 210.4, "forward_wall_ms": 400.0, "peak_memory_gb": 0.94},
    "processes": [
        {
            "what": "hemoscope predict",
            "slices": 1,
            "threads": 1,
            **{name: {"median": 2.0, "values": [1.0, 2.0, 3.0]} for name in ("wall_s", "cpu_s", "peak_memory_gb")},
        }
    ],
    "forward": [
        {
            "what": "PyTorch eager",
            "threads": 1,
            **{name: {"median": 300.0, "values": [300.0]} for name in ("wall_ms", "cpu_ms")},
        }
    ],
}


@pytest.fixture(scope="module")
def scored() -> tuple[Array, Array]:
    """Probabilities and labels of 600 images, good but not perfect."""
    random = np.random.default_rng(1)
    labels = (random.random((600, 6)) < 0.2).astype(float)
    labels[:, 0] = labels[:, 1:].max(axis=1)
    logits = 2 * (random.normal(size=labels.shape) + 2 * labels - 1)
    return 1 / (1 + np.exp(-logits)), labels


def write_csv(folder: Path, p: Array, y: Array) -> PaperData:
    one, two = folder / "p.csv", folder / "l.csv"
    head = ",".join(["image_id", *LABELS])
    one.write_text("\n".join([head, *(f"ID_{i}," + ",".join(map(repr, row)) for i, row in enumerate(p.tolist()))]))
    rows = (f"ID_{i}," + ",".join(str(int(value)) for value in row) + f",p{i // 5}" for i, row in enumerate(y))
    two.write_text("\n".join([f"{head},patient_id", *rows]))
    return PaperData(predictions=one, labels=two, group_column="patient_id")


@pytest.fixture(scope="module")
def written(scored: tuple[Array, Array], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A reproduction from those predictions, with a timing: its folder and its document."""
    folder = tmp_path_factory.mktemp("reproduction")
    data = write_csv(folder, *scored)
    return folder / "out", reproduce_paper(folder / "out", data, timing=TIMING, rounds=30, seed=0)


def by_id(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {number["id"]: number for number in document["numbers"]}


@pytest.mark.parametrize("table", TABLES)
def test_every_number_of_a_table_stands_once(table: str) -> None:
    found = [number for number in PUBLISHED if number.where == table]
    assert [round(1000 * number.value) for number in found] == [int(printed) for printed in TABLES[table].split()]
    places = [(number.row, number.column) for number in found]
    assert len(set(places)) == len(places)


@pytest.mark.parametrize("where", TEXT)
def test_every_number_of_the_text_stands_once(where: str) -> None:
    found = [number for number in PUBLISHED if number.where == where]
    assert tuple(number.value for number in found) == TEXT[where]
    assert len({number.row for number in found}) == len(found)


def test_ids_are_unique_and_every_number_has_a_place_on_the_page() -> None:
    assert (
        len(BY_ID) == len(PUBLISHED) == sum(map(len, TEXT.values())) + sum(len(row.split()) for row in TABLES.values())
    )
    assert {number.where for number in PUBLISHED} == set(PLACES)


def test_the_paper_contradicts_itself_as_the_notes_say() -> None:
    recalls = [BY_ID[f"table-5.{label}.recall"].value for label in LABELS]
    assert np.mean(recalls) == pytest.approx(0.8748, abs=5e-5)
    assert np.std(recalls, ddof=1) == pytest.approx(0.0531, abs=5e-5)
    assert np.mean(recalls[1:]) == pytest.approx(0.862, abs=5e-4)
    note = PLACES["Abstract, VII"][1]
    assert all(number in note for number in (".862", ".8748", ".0531"))
    accuracies = [BY_ID[f"table-2.{label}.accuracy"].value for label in LABELS]
    assert 100 * np.mean(accuracies) == pytest.approx(BY_ID["headline.accuracy"].value, abs=0.051)


def number(printed: str, where: str = "V-A") -> PublishedNumber:
    return PublishedNumber(id="x", where=where, row="x", printed=printed, source=Source.PREDICTIONS, key="x")


@pytest.mark.parametrize(
    ("printed", "value", "low", "high", "status"),
    [
        (".965", 0.9646, 0.95, 0.97, Status.REPRODUCED),
        (".965", 0.9655, None, None, Status.REPRODUCED),
        (".965", 0.9656, None, None, Status.DIFFERS),
        (".965", 0.960, 0.950, 0.970, Status.CONSISTENT),
        (".965", 0.960, 0.955, 0.9646, Status.CONSISTENT),  # its last digit stands for .9645 to .9655
        (".965", 0.960, 0.955, 0.9644, Status.DIFFERS),
        ("752803", 752803, None, None, Status.REPRODUCED),
        ("752803", 752802, None, None, Status.DIFFERS),
        ("1e-5", 1.4e-5, None, None, Status.REPRODUCED),
        ("1e-5", 1e-4, None, None, Status.DIFFERS),
    ],
)
def test_the_status_follows_the_printed_digits_and_the_interval(
    printed: str, value: float, low: float | None, high: float | None, status: Status
) -> None:
    found = compared(number(printed), Recomputed(value=value, low=low, high=high, basis="b"), "command")
    assert found["status"] == status
    assert found["difference"] == pytest.approx(value - float(printed))
    assert found["command"] == "command"
    assert found["needs"] is None


def test_a_measured_number_is_neither_reproduced_nor_different() -> None:
    found = compared(number("366", "VI"), Recomputed(value=366.0, basis="this machine"), None)
    assert found["status"] == Status.MEASURED


@pytest.mark.parametrize("source", Source)
def test_a_number_without_its_data_says_what_it_needs(source: Source) -> None:
    missing = PublishedNumber(id="x", where="III", row="x", printed="1", source=source, key="x")
    found = compared(missing, None, "unused")
    assert (found["status"], found["recomputed"], found["difference"]) == (Status.NOT_RECOMPUTED, None, None)
    assert (found["needs"], found["command"]) == NEEDS[source]


def test_the_commands_for_what_is_missing_are_accepted_and_name_experiments_that_ship() -> None:
    from hemoscope.cli.commands import build_parser
    from hemoscope.training.toml_config import shipped

    parser = build_parser()
    commands = [part.split()[1:] for _, command in NEEDS.values() if command for part in command.split(" && ")]
    parsed = [parser.parse_args(words) for words in commands]
    trained = {str(arguments.experiment) for arguments in parsed if arguments.command == "train"}
    assert trained == {"paper", "paper-frozen"} <= set(shipped("experiment"))


def test_scores_are_those_of_scikit_learn(scored: tuple[Array, Array], written: tuple[Path, dict[str, Any]]) -> None:
    p, y = scored
    numbers = by_id(written[1])
    expected = {
        "headline.auroc": reference.roc_auc_score(y, p),
        "headline.exact_match": 100 * ((p > 0.5) == y).all(axis=1).mean(),
        "headline.recall": reference.recall_score(y, p > 0.5, average="macro"),
        "headline.accuracy": 100 * ((p > 0.5) == y).mean(),
        "table-2.subdural.precision": reference.precision_score(y[:, 5], p[:, 5] > 0.5),
        "table-3.explicit.recall": reference.recall_score(y[:, 0], (p[:, 1:] > 0.5).any(axis=1)),
    }
    for name, value in expected.items():
        assert numbers[name]["recomputed"]["value"] == pytest.approx(value, abs=1e-9), name


def test_points_and_their_means_are_those_of_scikit_learns_curve(
    scored: tuple[Array, Array], written: tuple[Path, dict[str, Any]]
) -> None:
    p, y = scored
    numbers = by_id(written[1])
    recalls = []
    for k, label in enumerate(LABELS):
        precision, recall, _ = reference.precision_recall_curve(y[:, k], p[:, k])
        recalls.append(recall[:-1][precision[:-1] >= 0.7].max())
        assert numbers[f"table-5.{label}.recall"]["recomputed"]["value"] == pytest.approx(recalls[-1])
    assert numbers["conclusion.recall"]["recomputed"]["value"] == pytest.approx(np.mean(recalls))
    assert numbers["conclusion.spread"]["recomputed"]["value"] == pytest.approx(np.std(recalls, ddof=1))
    assert numbers["abstract.recall"]["recomputed"]["value"] == pytest.approx(100 * np.mean(recalls[1:]))


def test_intervals_of_points_agree_with_resampled_images(scored: tuple[Array, Array]) -> None:
    p, y = scored
    ours = point_intervals(p, y, rounds=300, seed=0)["at_precision.any.recall"]
    random = np.random.default_rng(5)
    drawn = []
    for _ in range(300):
        rows = random.integers(len(p), size=len(p))
        precision, recall, _ = reference.precision_recall_curve(y[rows, 0], p[rows, 0])
        drawn.append(recall[:-1][precision[:-1] >= 0.7].max())
    assert ours == pytest.approx(np.percentile(drawn, [2.5, 97.5]), abs=0.012)


def test_patients_widen_the_intervals_of_points(scored: tuple[Array, Array]) -> None:
    p, y = (np.repeat(array, 10, axis=0) for array in scored)
    patients = np.repeat(np.arange(600), 10).tolist()
    (low, high), (near, far) = (
        point_intervals(p, y, groups, rounds=60, seed=0)["at_precision.any.recall"] for groups in (None, patients)
    )
    assert far - near > 2 * (high - low)


def test_accuracy_at_a_printed_threshold_counts_scores_above_it() -> None:
    p, y = np.zeros((4, 6)), np.zeros((4, 6))
    p[:, 0] = [0.0, 0.001, 0.0011, 0.9]
    y[:, 0] = [0, 0, 1, 1]
    found = at_printed_thresholds(p, y)
    assert found["table-4.50.accuracy"] == 0.75
    assert found["table-4.55.accuracy"] == 1.0
    assert len(found) == 10


def test_shares_count_each_image_once_and_leave_out_unknown_ones() -> None:
    labels = [(0,) * 6, (0,) * 6, (1, 1, 0, 0, 0, 0), (1, 0, 1, 0, 1, 0), (1, None, 1, 0, 0, 0)]
    found = from_labels(labels, "stage_2_train.csv", whole=True)
    assert [found[f"data.{kind}"].value for kind in ("none", "one", "several")] == [50.0, 25.0, 25.0]
    assert found["data.images"].value == 5
    assert found["data.none"].low is None
    sample = from_labels(labels, "some", whole=False)
    assert "data.images" not in sample
    # Wilson's interval for 2 of 4: (.1500, .8500).
    assert (sample["data.none"].low, sample["data.none"].high) == pytest.approx((15.004, 84.996), abs=1e-3)
    assert from_labels([(None,) * 6], "none", whole=True) == {}


def test_the_shipped_recipe_has_the_settings_of_the_paper() -> None:
    values = from_recipe()
    settings = [number for number in PUBLISHED if number.source is Source.RECIPE]
    assert len(settings) == 21
    for setting in settings:
        assert values[setting.key].value == pytest.approx(setting.value), setting.id


def test_a_timing_gives_the_deployment_and_the_shape_of_the_features() -> None:
    assert {key: found.value for key, found in from_timing(TIMING).items()} == {
        "network.side": 7,
        "network.features": 2048,
        "deployment.time": 210.4,
        "deployment.memory": 0.94,
    }


def test_without_any_data_the_page_still_stands_and_names_what_is_missing(tmp_path: Path) -> None:
    document = reproduce_paper(tmp_path, PaperData(), rounds=10, seed=0)
    assert document["counts"][Status.REPRODUCED] == 21
    assert document["counts"][Status.NOT_RECOMPUTED] == len(PUBLISHED) - 21
    assert all(number["needs"] for number in document["numbers"] if number["recomputed"] is None)
    page = (tmp_path / "reproduction.html").read_text()
    assert "What is missing" in page
    assert "hemoscope reproduce paper --output DIR --timing --slices FOLDER" in page
    assert "Table IV (40 numbers)" in page
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "reproduction.html",
        "reproduction.json",
        "windows.png",
    ]


def test_the_whole_label_file_gives_the_size_of_the_dataset_and_table_one(tmp_path: Path) -> None:
    lines = ["ID,Label"]
    for image in range(20):
        six = [int(image < 5), int(image < 2), int(image < 5), 0, 0, 0]
        lines += [f"ID_{image:02d}_{label},{value}" for label, value in zip(LABELS, six, strict=True)]
    path = tmp_path / "stage_2_train.csv"
    path.write_text("\n".join(lines) + "\n")
    document = reproduce_paper(tmp_path / "out", PaperData(rsna_labels=path), rounds=10, seed=0)
    numbers = by_id(document)
    assert numbers["data.images"]["recomputed"]["value"] == 20
    assert numbers["data.images"]["status"] == Status.DIFFERS
    assert numbers["data.several"]["recomputed"]["value"] == 10.0
    assert numbers["split.images"]["recomputed"]["value"] == 0.002
    assert [row["image_id"] for row in document["table_1"]] == ["ID_05", "ID_02", "ID_00"]
    assert document["table_1"][1]["labels"] == dict(zip(LABELS, (1, 0, 1, 0, 0, 0), strict=True))


def test_files_that_do_not_match_are_refused(tmp_path: Path, scored: tuple[Array, Array]) -> None:
    data = write_csv(tmp_path, *scored)
    assert data.labels is not None
    data.labels.write_text("image_id\nx\n")
    with pytest.raises(DataError, match="lacks the columns"):
        reproduce_paper(tmp_path / "out", data, rounds=10, seed=0)


def test_the_document_is_what_was_written_and_counts_its_numbers(written: tuple[Path, dict[str, Any]]) -> None:
    folder, document = written
    assert json.loads((folder / "reproduction.json").read_text()) == json.loads(json.dumps(document))
    assert document["schema"] == "hemoscope.reproduction/1"
    assert sum(document["counts"].values()) == len(document["numbers"]) == len(PUBLISHED)
    assert document["bootstrap"] == {"rounds": 30, "seed": 0, "unit": "group"}
    assert (folder / "evaluation" / "report.html").is_file()
    for name in ("label_counts", "windows"):
        with Image.open(folder / f"{name}.png") as picture:
            assert min(picture.size) > 300
    command = by_id(document)["table-5.any.recall"]["command"]
    assert command == (
        "hemoscope evaluate --predictions p.csv --labels l.csv --groups patient_id --output DIR --rounds 30 --seed 0"
    )


class _Structure(HTMLParser):
    """Open and closed tags, ids of tables' cells, and every address that a browser would fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.addresses: list[str] = []
        self.widths: list[int] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag == "tr":
            self.widths.append(0)
        if tag in ("td", "th"):
            self.widths[-1] += 1

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes another element"

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_is_well_formed_fetches_nothing_and_shows_every_number(written: tuple[Path, dict[str, Any]]) -> None:
    folder, document = written
    page = (folder / "reproduction.html").read_text()
    found = _Structure()
    found.feed(page)
    assert found.open == []
    assert min(found.widths) >= 3
    assert all(address.startswith("data:image/png;base64,") for address in found.addresses)
    assert len(found.addresses) == 4
    assert "<script" not in page
    assert len(re.findall(r'class="status" data-status=', page)) == len(PUBLISHED) + len(Status)
    assert all(status in found.text for status in document["statuses"])
    assert document["disclaimer"] in found.text
    assert "2.001.00, 2.00, 3.00" in found.text  # the median, and small below it all values


def test_text_from_files_is_escaped(tmp_path: Path, scored: tuple[Array, Array]) -> None:
    data = write_csv(tmp_path, *scored)
    assert data.predictions is not None
    odd = data.predictions.rename(tmp_path / "<b>.csv")
    reproduce_paper(tmp_path / "out", PaperData(predictions=odd, labels=data.labels), rounds=10, seed=0)
    assert "<b>.csv" not in (tmp_path / "out" / "reproduction.html").read_text()
