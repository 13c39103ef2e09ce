"""Compares a model's scores in reduced precision with those in float32, and writes what its card says of it.

    python experiments/precision.py CACHE DATA --bundle BUNDLE --output RESULTS

CACHE is CT-ICH as ``hemoscope prepare ct-ich`` wrote it; DATA holds ``rsna-dicom``, ``cq500-series`` and
``field-cases``. BUNDLE (default: the one that ships) may hold a graph in int8 (``hemoscope export --quantize``).
RESULTS gets ``scores.jsonl``, a line a study, from which an interrupted run goes on, and ``precision.json``: the
differences on each set, and which precisions are accepted. Patients of CT-ICH come in random order, so that a part of
them (``--patients N``) is a sample.

    python experiments/precision.py --write BUNDLE OUTPUT --output RESULTS

writes BUNDLE again as OUTPUT, with these tests in its card.

A precision is accepted if, out of fold on CT-ICH, no AUROC changes by more than .002 (six labels by slice, the
established ones by study), and if no study of any set that is further than .03 from a threshold in float32 changes
sides. The networks of the folds were not kept, only their scores. So the change of each slice's score is measured with
the network that ships, and added to the score out of fold of the same slice (``experiments/results/default``). AUROC
of the network that ships is stated too: in sample on CT-ICH, abroad on RSNA, where two slices are subarachnoid.
"""

import argparse
import json
import platform
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from hemoscope.data.cache import open_cache
from hemoscope.dicom.archive import open_archive
from hemoscope.evaluation.prediction_files import read_labels
from hemoscope.inference.bundle import GRAPH, GRAPH_INT8, SEQUENCE, ModelBundle, load_bundle, write_bundle
from hemoscope.inference.calibration import Calibration
from hemoscope.inference.precision import Precision, PrecisionTest
from hemoscope.inference.predictor import Predictor
from hemoscope.inference.preprocess import model_input
from hemoscope.inference.probabilities import StudyProbabilities
from hemoscope.labels import LABELS, Hemorrhage

Scores = NDArray[np.float64]
ANY = LABELS.index(Hemorrhage.ANY)
GROUPS = ("RSNA", "CT-ICH", "field cases", "CQ500")
RUN = Path(__file__).parent / "results" / "default"
STUDY_SLICES = 5  # the study rule's 25 mm at 5 mm
MOST_AUROC, NEAR = 0.002, 0.03


@dataclass(frozen=True, kw_only=True)
class Study:
    """One study's probabilities in each precision, and the truth of its slices (None: unknown); a line of the file."""

    name: str
    group: str
    slices: dict[str, list[list[float]]]
    study: dict[str, list[float]]
    truth: list[list[float | None]]


class Results:
    """The studies that are scored, in a file that each one is added to."""

    def __init__(self, path: Path) -> None:
        """Read what an earlier run scored."""
        self._path = path
        lines = path.read_text().splitlines() if path.is_file() else []
        self.studies = [Study(**json.loads(line)) for line in lines]

    def has(self, group: str, name: str) -> bool:
        """Whether a study is scored already."""
        return any((one.group, one.name) == (group, name) for one in self.studies)

    def add(self, group: str, name: str, found: dict[str, StudyProbabilities], truth: Scores) -> None:
        """Add a study."""
        study = Study(
            name=name,
            group=group,
            slices={kind: one.slice_probabilities.round(6).tolist() for kind, one in found.items()},
            study={kind: one.study_probabilities.round(6).tolist() for kind, one in found.items()},
            truth=[[None if np.isnan(value) else float(value) for value in row] for row in truth],
        )
        self.studies.append(study)
        with self._path.open("a") as file:
            file.write(json.dumps(asdict(study)) + "\n")


def engine_times(folder: Path, predictors: list[Predictor], slices: int = 60) -> dict[Precision, float]:
    """Return the median processor seconds of a slice in each engine, one after the other for each slice."""
    cache, seconds = open_cache(folder), dict[Precision, list[float]]()
    names = sorted(set(cache.manifest["series_id"]))
    for name in names[:: max(1, len(names) // slices)]:
        volume = cache.read_series(str(name)).volume.canonical
        image = model_input(volume, len(volume) // 2, predictors[0].bundle.card.preprocessing)
        for predictor in predictors:
            began = time.process_time()
            predictor.engine.run([image])
            seconds.setdefault(predictor.engine.precision, []).append(time.process_time() - began)
    return {kind: float(np.median(values)) for kind, values in seconds.items()}


def score_cache(folder: Path, predictors: list[Predictor], results: Results, patients: int | None) -> None:
    """Score the series of so many patients of a prepared dataset."""
    cache = open_cache(folder)
    series = [(str(name), rows) for name, rows in cache.manifest.groupby("series_id", sort=True)]
    for place in np.random.default_rng(0).permutation(len(series))[:patients]:
        name, members = series[place]
        if results.has("CT-ICH", name):
            continue
        volume = cache.read_series(name).volume
        truth = members.sort_values("index")[list(LABELS)].to_numpy(dtype=np.float64)
        found = {one.engine.precision.value: one.probabilities(volume)[0] for one in predictors}
        results.add("CT-ICH", name, found, truth)


def score_folder(
    group: str, folder: Path, predictors: list[Predictor], results: Results, labels: Path | None = None
) -> None:
    """Score every study of a folder of DICOM files that can be read; studies are counted, not named."""
    truth = {} if labels is None else labels_by_image(labels)
    archive, unknown = open_archive([folder]), np.full(len(LABELS), np.nan)
    for number, study in enumerate(archive.studies):
        if results.has(group, str(number)):
            continue
        reading = predictors[0].read_study(archive, study).reading
        if reading is None:
            continue
        found = {one.engine.precision.value: one.probabilities(reading.volume)[0] for one in predictors[1:]}
        found[predictors[0].engine.precision.value] = reading.probabilities
        names = [Path(one.source).stem for one in reading.findings.slices]
        results.add(group, str(number), found, np.array([truth.get(name, unknown) for name in names]))


def labels_by_image(path: Path) -> dict[str, Scores]:
    """Read six labels of each image; NaN where unknown."""
    table = read_labels(path, group_column="patient_id")
    return dict(zip(table.image_ids, np.asarray(table.labels, dtype=np.float64), strict=True))


def differences(chosen: list[Study], kind: Precision, thresholds: Scores) -> dict[str, Any]:
    """Compare a precision with float32 on the studies of one set."""
    slices, exact = (np.concatenate([one.slices[name] for one in chosen]) for name in (kind, Precision.FLOAT32))
    studies, exact_studies = (np.array([one.study[name] for one in chosen]) for name in (kind, Precision.FLOAT32))
    truths = [np.array(one.truth, dtype=np.float64) for one in chosen]
    truth, study_truth = np.concatenate(truths), np.array([np.max(one, axis=0) for one in truths])
    changed = (studies >= thresholds) != (exact_studies >= thresholds)
    return {
        "slices": len(slices),
        "studies": len(studies),
        "auroc_by_slice": dict(aurocs(truth, slices, exact)),
        "auroc_by_study": dict(aurocs(study_truth, studies, exact_studies)),
        "slice_any": float(np.abs(slices - exact)[:, ANY].max()),
        "slice_any_mean": float(np.abs(slices - exact)[:, ANY].mean()),
        "slice": float(np.abs(slices - exact).max()),
        "study_any": float(np.abs(studies - exact_studies)[:, ANY].max()),
        "study": float(np.abs(studies - exact_studies).max()),
        "sides_changed": int(changed.sum()),
        "crossed": int((changed & (np.abs(exact_studies - thresholds) > NEAR)).any(axis=1).sum()),
    }


def aurocs(truth: Scores, scores: Scores, exact: Scores) -> Iterator[tuple[str, list[float]]]:
    """Yield AUROC in float32 and in the other precision for each label that has both kinds of rows."""
    for place, label in enumerate(LABELS):
        known = np.isfinite(truth[:, place])
        rows = truth[known, place]
        if len(set(rows)) == 2:
            pair = (roc_auc_score(rows, one[known, place]) for one in (exact, scores))
            yield label.value, [round(float(value), 5) for value in pair]


def out_of_fold(chosen: list[Study], kind: Precision, bundle: ModelBundle) -> dict[str, Any]:
    """Carry the change of every slice's score over to its score out of fold; return AUROC before and after."""
    table = pd.concat(pd.read_csv(path) for path in sorted(RUN.glob("fold-*/scores.csv")))
    columns = [f"logit_{label.value}" for label in LABELS]
    rows = {str(name): part.sort_values("index")[columns].to_numpy() for name, part in table.groupby("patient_id")}
    lines = [bundle.card.calibration.slice[label] for label in LABELS]
    scale = np.array([line.scale if isinstance(line, Calibration) else np.nan for line in lines])
    before = [rows[one.name] for one in chosen]
    shifts = [(log_odds(one.slices[kind]) - log_odds(one.slices[Precision.FLOAT32])) / scale for one in chosen]
    after = [raw + shift for raw, shift in zip(before, shifts, strict=True)]
    truths = [np.array(one.truth, dtype=np.float64) for one in chosen]
    studies = [
        np.array([np.sort(one, axis=0)[-STUDY_SLICES:].mean(axis=0) for one in part]) for part in (before, after)
    ]
    established = [label.value for label in LABELS if bundle.card.established[label]]
    by_study = dict(aurocs(np.array([one.max(axis=0) for one in truths]), studies[1], studies[0]))
    return {
        "by_slice": dict(aurocs(np.concatenate(truths), np.concatenate(after), np.concatenate(before))),
        "by_study": {label: pair for label, pair in by_study.items() if label in established},
    }


def log_odds(probabilities: list[list[float]]) -> Scores:
    """Log-odds of probabilities, which were rounded to six digits."""
    clipped = np.clip(np.array(probabilities), 1e-6, 1 - 1e-6)
    return np.asarray(np.log(clipped / (1 - clipped)))


def verdict(kind: Precision, sets: dict[str, dict[str, Any]], folds: dict[str, Any], ratio: float) -> PrecisionTest:
    """Put the sets together: the card's line."""
    changes = [abs(one - other) for level in folds.values() for one, other in level.values()]
    crossed = sum(found["crossed"] for found in sets.values())
    return PrecisionTest(
        precision="bf16" if kind is Precision.BF16 else "int8",
        accepted=max(changes) <= MOST_AUROC and crossed == 0,
        time=round(ratio, 2),
        processor=processor(),
        data=", ".join(f"{name} ({found['slices']} slices)" for name, found in sets.items()),
        slices=sum(found["slices"] for found in sets.values()),
        studies=sum(found["studies"] for found in sets.values()),
        auroc=round(max(changes), 5),
        slice=round(max(found["slice_any"] for found in sets.values()), 4),
        study=round(max(found["study_any"] for found in sets.values()), 4),
        crossed=crossed,
    )


def processor() -> str:
    """Name the processor and the instructions that decide."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    value = {line.partition(":")[0].strip(): line.partition(":")[2].strip() for line in lines}
    wanted = [name for name in ("amx_bf16", "amx_int8", "avx512_bf16", "avx512_vnni") if name in value["flags"].split()]
    return f"{value.get('model name', platform.machine())} ({', '.join(wanted)})"


def measure(arguments: argparse.Namespace) -> None:
    """Score every set in every precision, and write scores and differences."""
    bundle, data = load_bundle(arguments.bundle), arguments.data
    kinds = [Precision.FLOAT32, Precision.BF16, *([Precision.INT8] if bundle.has_int8 else [])]
    predictors = [Predictor(bundle, threads=1, precision=kind) for kind in kinds]
    arguments.output.mkdir(parents=True, exist_ok=True)
    results = Results(arguments.output / "scores.jsonl")
    times = engine_times(arguments.cache, predictors)
    rsna = data / "rsna-dicom"
    score_folder("RSNA", rsna / "images", predictors, results, rsna / "manifest.csv")
    score_cache(arguments.cache, predictors, results, arguments.patients)
    score_folder("field cases", data / "field-cases", predictors, results)
    score_folder("CQ500", data / "cq500-series", predictors, results)
    summarize(bundle, results, times, arguments.output)


def summarize(bundle: ModelBundle, results: Results, times: dict[Precision, float], output: Path) -> None:
    """Write the differences and the card's lines."""
    points = bundle.card.operating_points.study
    thresholds = np.array([points[label].threshold for label in LABELS])
    groups = {name: [one for one in results.studies if one.group == name] for name in GROUPS}
    document: dict[str, Any] = {"graphs": {name: bundle.card.files[name] for name in sorted(bundle.card.files)}}
    document["processor"] = processor()
    document["cpu_ms_a_slice"] = {kind.value: round(1000 * value, 1) for kind, value in times.items()}
    document["sets"], document["out_of_fold"], document["tests"] = {}, {}, []
    for kind in [kind for kind in times if kind is not Precision.FLOAT32]:
        sets = {name: differences(chosen, kind, thresholds) for name, chosen in groups.items() if chosen}
        folds = out_of_fold(groups["CT-ICH"], kind, bundle)
        document["sets"][kind.value], document["out_of_fold"][kind.value] = sets, folds
        document["tests"].append(asdict(verdict(kind, sets, folds, times[kind] / times[Precision.FLOAT32])))
    text = json.dumps(document, indent=1) + "\n"
    (output / "precision.json").write_text(text)
    sys.stdout.write(text)


def write(bundle: ModelBundle, output: Path, results: Path) -> None:
    """Write a bundle again with the tests of a result in its card."""
    tests = json.loads((results / "precision.json").read_text())["tests"]
    listed = tuple(PrecisionTest(**test) for test in tests if test["precision"] == "bf16" or bundle.has_int8)
    card = replace(bundle.card, precision=listed)
    files = {name: bundle.read_file(name) for name in card.files if name not in {GRAPH, GRAPH_INT8, SEQUENCE}}
    int8 = bundle.read_file(GRAPH_INT8) if bundle.has_int8 else None
    written = write_bundle(output, card, bundle.read_graph(), files, sequence=bundle.read_sequence(), int8=int8)
    sys.stdout.write(f"{written.sha256}\n")


def main() -> None:
    """Measure, or write a card."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cache", type=Path, nargs="?")
    parser.add_argument("data", type=Path, nargs="?")
    parser.add_argument("--bundle", type=Path)
    parser.add_argument("--patients", type=int, help="of CT-ICH (all)")
    parser.add_argument("--output", type=Path, default=Path("experiments/results/precision"))
    parser.add_argument("--write", type=Path, nargs=2, metavar=("BUNDLE", "OUTPUT"))
    arguments = parser.parse_args()
    if arguments.write:
        write(load_bundle(arguments.write[0]), arguments.write[1], arguments.output)
        return
    measure(arguments)


if __name__ == "__main__":
    main()
