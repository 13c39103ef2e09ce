"""Compares a model's scores in reduced precision with those in float32, and writes what its card says of it.

    python experiments/precision.py CACHE DATA --bundle BUNDLE --output experiments/results/precision

CACHE is CT-ICH as ``hemoscope prepare ct-ich`` wrote it; DATA holds ``rsna-dicom``, ``cq500-series`` and
``field-cases``. BUNDLE (default: the one that ships) may hold a graph in int8 (``hemoscope export --quantize``). The
output gets ``precision.json``: the differences on each set, and which precisions are accepted.

    python experiments/precision.py --write BUNDLE OUTPUT --results experiments/results/precision

writes BUNDLE again with these tests in its card.

A precision is accepted if no label's AUROC changes by more than .002 and no study that is further than .03 from a
threshold in float32 changes sides. The weights that ship saw all of CT-ICH but one patient, so its AUROC is in sample;
the folds' networks of the run were not kept. The change of AUROC is what counts here, beside the sets abroad.
"""

import argparse
import dataclasses
import json
import platform
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from hemoscope.data.cache import open_cache
from hemoscope.dicom.archive import open_archive
from hemoscope.evaluation.prediction_files import read_labels
from hemoscope.inference.bundle import GRAPH, GRAPH_INT8, SEQUENCE, ModelBundle, load_bundle, write_bundle
from hemoscope.inference.precision import Precision, PrecisionTest
from hemoscope.inference.predictor import Predictor
from hemoscope.inference.preprocess import model_input
from hemoscope.labels import LABELS, Hemorrhage
from hemoscope.volume import HounsfieldVolume

Scores = NDArray[np.float64]
ANY = LABELS.index(Hemorrhage.ANY)
MOST_AUROC, NEAR = 0.002, 0.03


@dataclass(kw_only=True)
class SetScores:
    """Probabilities of one set in each precision, and its truth (NaN: unknown); a list item is a study."""

    slices: dict[Precision, list[Scores]] = field(default_factory=dict)
    studies: dict[Precision, list[Scores]] = field(default_factory=dict)
    truth: list[Scores] = field(default_factory=list)

    def add(self, predictors: list[Predictor], volume: HounsfieldVolume, truth: Scores) -> None:
        """Score one study with every predictor."""
        for predictor in predictors:
            found, _ = predictor.probabilities(volume)
            self.slices.setdefault(predictor.engine.precision, []).append(found.slice_probabilities)
            self.studies.setdefault(predictor.engine.precision, []).append(found.study_probabilities)
        self.truth.append(truth)


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


def score_cache(folder: Path, predictors: list[Predictor]) -> SetScores:
    """Score every series of a prepared dataset."""
    cache, found = open_cache(folder), SetScores()
    for name, members in cache.manifest.groupby("series_id", sort=True):
        volume = cache.read_series(str(name)).volume
        truth = members.sort_values("index")[list(LABELS)].to_numpy(dtype=np.float64)
        found.add(predictors, volume, truth)
    return found


def score_folder(folder: Path, predictors: list[Predictor], labels: Path | None = None) -> SetScores:
    """Score every study of a folder of DICOM files that can be read."""
    found, archive = SetScores(), open_archive([folder])
    truth = {} if labels is None else labels_by_image(labels)
    for outcome in predictors[0].studies(archive):
        if outcome.reading is None:
            continue
        names = [Path(one.source).stem for one in outcome.reading.findings.slices]
        unknown = np.full(len(LABELS), np.nan)
        found.add(predictors, outcome.reading.volume, np.array([truth.get(name, unknown) for name in names]))
    return found


def labels_by_image(path: Path) -> dict[str, Scores]:
    """Read six labels of each image; NaN where unknown."""
    table = read_labels(path, group_column="patient_id")
    return dict(zip(table.image_ids, np.asarray(table.labels, dtype=np.float64), strict=True))


def differences(found: SetScores, kind: Precision, thresholds: Scores) -> dict[str, Any]:
    """Compare a precision with float32 on one set."""
    slices, exact = np.concatenate(found.slices[kind]), np.concatenate(found.slices[Precision.FLOAT32])
    studies, exact_studies = np.array(found.studies[kind]), np.array(found.studies[Precision.FLOAT32])
    truth = np.concatenate(found.truth)
    study_truth = np.array([np.max(one, axis=0) for one in found.truth])
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


def verdict(kind: Precision, sets: dict[str, dict[str, Any]], ratio: float) -> PrecisionTest:
    """Put the sets together: the card's line."""
    changes = [
        abs(one - other)
        for found in sets.values()
        for level in ("auroc_by_slice", "auroc_by_study")
        for one, other in found[level].values()
    ]
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
    bundle = load_bundle(arguments.bundle)
    kinds = [Precision.FLOAT32, Precision.BF16, *([Precision.INT8] if bundle.has_int8 else [])]
    predictors = [Predictor(bundle, threads=1, precision=kind) for kind in kinds]
    data = arguments.data
    found = {
        "RSNA": score_folder(data / "rsna-dicom" / "images", predictors, data / "rsna-dicom" / "manifest.csv"),
        "CQ500": score_folder(data / "cq500-series", predictors),
        "field cases": score_folder(data / "field-cases", predictors),
        "CT-ICH": score_cache(arguments.cache, predictors),
    }
    times = engine_times(arguments.cache, predictors)
    points = bundle.card.operating_points.study
    thresholds = np.array([points[label].threshold for label in LABELS])
    arguments.output.mkdir(parents=True, exist_ok=True)
    tests = []
    document: dict[str, Any] = {"bundle": dict(bundle.card.files), "sets": {}, "tests": tests}
    document["cpu_ms_a_slice"] = {kind.value: round(1000 * value, 1) for kind, value in times.items()}
    for kind in kinds[1:]:
        sets = {name: differences(one, kind, thresholds) for name, one in found.items()}
        document["sets"][kind.value] = sets
        tests.append(dataclasses.asdict(verdict(kind, sets, times[kind] / times[Precision.FLOAT32])))
    text = json.dumps(document, indent=1) + "\n"
    (arguments.output / "precision.json").write_text(text)
    sys.stdout.write(text)


def write(bundle: ModelBundle, output: Path, results: Path) -> None:
    """Write a bundle again with the tests of a result in its card."""
    tests = json.loads((results / "precision.json").read_text())["tests"]
    listed = tuple(PrecisionTest(**test) for test in tests if test["precision"] == "bf16" or bundle.has_int8)
    card = dataclasses.replace(bundle.card, precision=listed)
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
    parser.add_argument("--output", type=Path, default=Path("experiments/results/precision"))
    parser.add_argument("--results", type=Path, default=Path("experiments/results/precision"))
    parser.add_argument("--write", type=Path, nargs=2, metavar=("BUNDLE", "OUTPUT"))
    arguments = parser.parse_args()
    if arguments.write:
        write(load_bundle(arguments.write[0]), arguments.write[1], arguments.results)
        return
    measure(arguments)


if __name__ == "__main__":
    main()
