"""The check of each field case: what must hold of what is read, and the figures that are seen.

Probabilities are compared with those of the same slices read alone or rewritten plainly, so that a new model changes
both. Pixels are compared with pydicom's.
"""

import io
import json
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pydicom
from field_case_reading import SAME, Bench, Read, Seen, files, pixels, same
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid

from hemoscope.data.cache import open_cache
from hemoscope.dicom.deidentify_folder import deidentify_folder
from hemoscope.labels import LABELS

KEY = b"a key of these checks"
NO_AGENT = ("W/O CONTRAST", "WITHOUT CONTRAST", "NON CONTRAST", "NONE GIVEN", "NONE", "N/A", "-")
LIKE_ALONE = 0.02  # of a probability that the README rounds to two digits


def two_patients(bench: Bench, given: Path) -> Seen:
    """Both patients are read, each as if alone."""
    found = bench.read(given).prediction.studies
    alone = [bench.alone(given, lambda one, name=name: one.PatientID == name).study for name in "AB"]
    present = [label.label for label in found[-1].findings.findings if label.present]
    any_ = [float(study.findings.probabilities["any"]) for study in (*found, *alone)]
    claims = {
        "two studies of 24 slices": [len(study.findings.slices) for study in found] == [24, 24],
        "each as alone": len(any_) == 4 and np.allclose(any_[:2], any_[2:], rtol=0, atol=SAME),
        "B has an epidural hemorrhage": "epidural" in present,
    }
    return Seen(f"{len(found)} studies, any {' and '.join(f'{one:.3f}' for one in any_[:2])}; B: epidural", claims)


def one_sop_uid(bench: Bench, given: Path) -> Seen:
    """Slices that share a UID are read as with their own."""
    read = bench.read(given)

    def give_uid(dataset: Dataset, number: int) -> None:
        dataset.SOPInstanceUID = generate_uid(entropy_srcs=[str(number)])

    noted, bleed = {"note": "repeated_uid" in read.codes}, {"any >= .9": read.any >= 0.9}
    urgent = {"immediate": read.study.findings.urgency == "immediate"}
    return Seen(
        read.text,
        {
            **read.whole(24),
            **noted,
            **bleed,
            **urgent,
            "as with own UIDs": same(read, bench.rewritten(given, give_uid)),
        },
    )


def bone_and_soft(bench: Bench, given: Path) -> Seen:
    """The soft kernel is read as if alone."""
    read = bench.read(given)
    kernels = {one.convolution_kernel for one in read.headers}
    soft = bench.alone(given, lambda one: one.ConvolutionKernel == "H31s")
    claims = {"one kernel, H31s": kernels == {"H31s"}, "as alone": same(read, soft), "any >= .9": read.any >= 0.9}
    return Seen(read.text, {**read.whole(24), **claims})


def two_passes(bench: Bench, given: Path) -> Seen:
    """One acquisition is read as if alone."""
    read = bench.read(given)
    (first, *others) = {one.acquisition[0] for one in read.headers}
    alone = bench.alone(given, lambda one: str(one.AcquisitionNumber) == str(first))
    claims = {
        "one acquisition": not others,
        "as alone": same(read, alone),
        "no slices missing": "missing_slices" not in read.codes,
    }
    return Seen(read.text, {**read.whole(24), **claims})


def sequential(bench: Bench, given: Path) -> Seen:
    """All slices are one stack, as without the acquisitions."""
    read = bench.read(given)

    def one_acquisition(dataset: Dataset, _: int) -> None:
        dataset.AcquisitionNumber = 1
        for name in ("AcquisitionTime", "AcquisitionDate", "ContentTime"):
            if name in dataset:
                delattr(dataset, name)

    plain = bench.rewritten(given, one_acquisition)
    claims = {"any >= .5": read.any >= 0.5, "as of one acquisition": same(read, plain)}
    return Seen(read.text, {**read.whole(24), **claims})


def offset(bench: Bench, given: Path) -> Seen:
    """The offset is refused, also in 12 bits; with the right intercept, the head is read."""
    read = bench.read(given)

    def in_12_bits(dataset: Dataset, _: int) -> None:
        dataset.PixelData = np.clip(dataset.pixel_array, 0, 4095).astype("<u2").tobytes()
        dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 12, 11, 0

    def corrected(dataset: Dataset, _: int) -> None:
        dataset.RescaleIntercept = float(dataset.RescaleIntercept) - 1024

    twelve, right = bench.rewritten(given, in_12_bits), bench.rewritten(given, corrected)
    return Seen(
        f"refused: {', '.join(read.refused)}; 12 bits: {', '.join(twelve.refused)}; corrected: any {right.any:.3f}",
        {**refused_as(read, "implausible_hounsfield"), "12 bits": is_refused(twelve), "corrected": right.any >= 0.9},
    )


def is_refused(read: Read) -> bool:
    """Whether nothing is read."""
    return not read.prediction.studies and bool(read.refused)


def refused_as(read: Read, code: str) -> dict[str, bool]:
    """Return the claim that nothing is read, for one reason."""
    return {f"refused as {code}": is_refused(read) and set(read.refused) == {code}}


def refused(code: str) -> Callable[[Bench, Path], Seen]:
    """Return the check that the case is refused with a code."""

    def check(bench: Bench, given: Path) -> Seen:
        read = bench.read(given)
        return Seen(f"refused: {', '.join(sorted(set(read.refused)))}", refused_as(read, code))

    return check


def one_orientation(slices: int, least: float = 0.0) -> Callable[[Bench, Path], Seen]:
    """Return the check that all slices are one stack, with at least this probability."""

    def check(bench: Bench, given: Path) -> Seen:
        read = bench.read(given)
        excluded = {"mixed_orientation", "overlapping_stacks", "missing_slices"} & read.codes
        claims = {"one stack": not excluded, f"any >= {least:g}": read.any >= least}
        return Seen(read.text, {**read.whole(slices), **claims})

    return check


def thin_then_thick(bench: Bench, given: Path) -> Seen:
    """The thick slices score as alone, and so does the study."""
    read = bench.read(given)
    alone = bench.alone(given, lambda one: float(one.SliceThickness) == 5.0)
    thick = [place for place, one in enumerate(read.headers) if one.slice_thickness_mm == 5.0]
    found, expected = (one.study.probabilities.slice_probabilities for one in (read, alone))
    claims = {
        "thick slices as alone": len(thick) == len(expected) and bool(np.abs(found[thick] - expected).max() <= SAME),
        "any as of the thick part alone": abs(read.any - alone.any) <= LIKE_ALONE,
    }
    return Seen(f"{read.text}; thick part alone: any {alone.any:.3f}", {**read.whole(92), **claims})


def thickness_5_10(bench: Bench, given: Path) -> Seen:
    """Two thicknesses leave no gap."""
    read = bench.read(given)
    return Seen(read.text, {**read.whole(20), "no slices missing": "missing_slices" not in read.codes})


def slice_location(bench: Bench, given: Path) -> Seen:
    """The order is that of Slice Location, and the note says so."""
    read = bench.read(given)
    note = next(one.message for one in read.study.findings.quality if one.code == "positions_unknown")
    claims = {"the note names Slice Location": "Slice Location" in note, "any >= .9": read.any >= 0.9}
    return Seen(read.text, {**read.whole(24), **claims})


def agent_without(bench: Bench, given: Path) -> Seen:
    """The soft series is read without a note, whichever way the header denies an agent."""
    read, good = bench.read(given), []
    for words in NO_AGENT:

        def denied(dataset: Dataset, _: int, words: str = words) -> None:
            if "ContrastBolusAgent" in dataset:
                dataset.ContrastBolusAgent = words

        other = bench.rewritten(given, denied)
        good.append(same(other, read) and "contrast_agent" not in other.codes)
    soft = {"soft kernel": {one.convolution_kernel for one in read.headers} == {"H30s"}}
    claims = {"no note": "contrast_agent" not in read.codes, f"{len(NO_AGENT)} wordings": all(good)}
    return Seen(f"{read.text}; as for {sum(good)} of {len(NO_AGENT)} wordings", {**read.whole(24), **soft, **claims})


def projection_last(slices: int) -> Callable[[Bench, Path], Seen]:
    """Return the check that the plain series is read, and that the projection carries a note if it is asked for."""

    def check(bench: Bench, given: Path) -> Seen:
        read = bench.read(given)
        (skipped,) = read.study.findings.skipped_series
        asked = bench.model.predict(read.archive, series_instance_uid=skipped.series_instance_uid).studies[0].findings
        claims = {
            "the plain series": all("MIP" not in one.kind.name and one.kind.name == "SLICE" for one in read.headers),
            "the projection is noted": "projection" in {note.code for note in asked.quality},
        }
        return Seen(f"{read.text}; left out: {skipped.reason}", {**read.whole(slices), **claims})

    return check


def noted(code: str, slices: int) -> Callable[[Bench, Path], Seen]:
    """Return the check that so many slices are read with a note."""

    def check(bench: Bench, given: Path) -> Seen:
        read = bench.read(given)
        return Seen(read.text, {**read.whole(slices), f"note {code}": code in read.codes})

    return check


def prone(bench: Bench, given: Path) -> Seen:
    """The same slices stored supine have the same answer."""
    read = bench.read(given)

    def supine(dataset: Dataset, _: int) -> None:
        image = dataset.pixel_array
        down, across = (float(step) for step in dataset.PixelSpacing)
        row, column = np.array(dataset.ImageOrientationPatient, dtype=float).reshape(2, 3)
        origin = np.array(dataset.ImagePositionPatient, dtype=float)
        origin += (image.shape[1] - 1) * across * row + (image.shape[0] - 1) * down * column
        dataset.PixelData = np.ascontiguousarray(image[::-1, ::-1]).tobytes()
        dataset.ImageOrientationPatient = [float(value) for value in (*-row, *-column)]
        dataset.ImagePositionPatient = [round(float(value), 4) for value in origin]
        dataset.PatientPosition = "HFS"

    other = bench.rewritten(given, supine)
    claims = {"stored prone": (read.study.volume.orientation or (1,))[0] < 0, "as supine": same(read, other)}
    return Seen(f"{read.text}; supine: any {other.any:.3f}", {**read.whole(24), **claims})


def padding(bench: Bench, given: Path) -> Seen:
    """Padding is air, and nothing else changes."""
    read, air, rest, count = bench.read(given), True, True, 0
    for path in files(given):
        dataset = pydicom.dcmread(path)
        stored = np.frombuffer(dataset.PixelData, "<u2").reshape(dataset.Rows, dataset.Columns)
        padded, found = stored == dataset.PixelPaddingValue, pixels(path)[0]
        count += int(padded.sum())
        air = air and bool((found[padded] == -1000).all())
        rest = rest and bool((found[~padded] == stored[~padded].astype(float) + float(dataset.RescaleIntercept)).all())
    claims = {"there is padding": count > 0, "padding is air": air, "the rest is as stored": rest}
    return Seen(f"{read.text}; {count} pixels of padding at -1000 HU", {**read.whole(3), **claims})


def as_plain(*codes: str) -> Callable[[Bench, Path], Seen]:
    """Return the check that HU equal those of the same phantom in valid files, by pydicom, with these notes."""

    def check(bench: Bench, given: Path) -> Seen:
        read = bench.read(given)
        with tarfile.open(bench.plain, errors="surrogateescape") as tar:
            members = [tar.extractfile(one) for one in tar.getmembers() if one.isfile()]
            plain = [pydicom.dcmread(io.BytesIO(one.read())) for one in members if one is not None]
        plain.sort(key=lambda one: float(one.ImagePositionPatient[2]))
        expected = [one.pixel_array * float(one.RescaleSlope) + float(one.RescaleIntercept) for one in plain]
        difference = float(np.abs(read.study.volume.hounsfield - np.stack(expected)).max())
        claims = {"difference 0": difference == 0, "its notes": read.codes == set(codes)}
        return Seen(f"{read.text}; largest difference {difference:g} HU", {**read.whole(3), **claims})

    return check


def fragments(_: Bench, given: Path) -> Seen:
    """Pixels equal pydicom's; where it has no decoder (12 bits), those of DCMTK."""
    dataset = pydicom.dcmread(given)
    values = dataset.SharedFunctionalGroupsSequence[0].PixelValueTransformationSequence[0]
    found = pixels(given)
    if given.stem.endswith("51"):
        with TemporaryDirectory() as temporary:
            subprocess.run(["dcmdjpeg", given, Path(temporary, "raw")], check=True, capture_output=True)  # noqa: S603, S607 - DCMTK
            stored, reference, most = pydicom.dcmread(Path(temporary, "raw")).pixel_array, "dcmdjpeg", 1.0
    else:
        stored, reference, most = dataset.pixel_array, "pydicom", 0.0
    difference = float(np.abs(found - (stored * float(values.RescaleSlope) + float(values.RescaleIntercept))).max())
    text = (
        f"{len(found)} frames decoded, largest difference from {reference} {difference:g} (then refused: parameter map)"
    )
    return Seen(text, {"2 frames": len(found) == 2, f"difference <= {most:g}": difference <= most})


def dicomdir(bench: Bench, given: Path) -> Seen:
    """The DICOMDIR alone leads to the files."""
    read = bench.read(given / "DICOMDIR")
    return Seen(read.text, read.whole(4))


def command(*arguments: object) -> subprocess.CompletedProcess[bytes]:
    """Run the command line."""
    line = [sys.executable, "-m", "hemoscope", *map(str, arguments)]
    return subprocess.run(line, capture_output=True, check=False)  # noqa: S603 - this program


def gbk_names(bench: Bench, given: Path) -> Seen:
    """The JSON and the files that are written are valid Unicode."""
    with TemporaryDirectory() as temporary:
        done = command("predict", given, "--output", Path(temporary, "out"))
        text = Path(temporary, "out", "findings.json").read_bytes().decode()
        (study,) = json.loads(text)["studies"]
        encoded = json.dumps(study, ensure_ascii=False).encode()  # a lone surrogate cannot be encoded
    read = bench.read(given)
    claims = {"exit code 0": done.returncode == 0, "3 slices": len(study["slices"]) == 3, "Unicode": bool(encoded)}
    return Seen(f"{read.text}; findings.json is valid Unicode", claims | read.whole(3))


def deidentified(given: Path, folder: Path) -> tuple[dict[Path, Dataset], list[str], int]:
    """De-identify a path; return what was written, the codes of refusals, and the number written."""
    done = deidentify_folder(given, folder, key=KEY)
    written = {path: pydicom.dcmread(path, force=True) for path in files(folder) if path.suffix == ".dcm"}
    return written, [one.code for one in done.rejected], done.written


def odd_element(_: Bench, given: Path) -> Seen:
    """The study goes on: the sound file beside it is written, the odd one is written readably or refused."""
    with TemporaryDirectory() as temporary:
        inputs = Path(temporary, "in")
        inputs.mkdir()
        (inputs / "odd.dcm").write_bytes(given.read_bytes())
        (inputs / "sound.dcm").write_bytes(given.with_name("deid_empty_contrast.dcm").read_bytes())
        written, codes, count = deidentified(inputs, Path(temporary, "out"))
        readable = all(str(element) for dataset in written.values() for element in dataset.iterall())
        named = sum(b"CompressedSamples" in path.read_bytes() for path in written)
    claims = {
        "each written or refused": count + len(codes) == 2 and len(written) == count,
        "the sound file is written": count >= 1,
        "every element can be read": readable,
        "no name is left": named == 0,
    }
    text = "written, every element can be read" if count == 2 else f"refused: {', '.join(codes)}"
    return Seen(f"{count} of 2 files written; the odd one: {text}", claims)


def empty_contrast(bench: Bench, given: Path) -> Seen:
    """An empty agent stays empty, NONE stays none, and no note appears."""
    agents, notes = [], [bench.read(given).codes]
    for words in ("", "NONE"):
        with TemporaryDirectory() as temporary:
            dataset = pydicom.dcmread(given)
            dataset.ContrastBolusAgent = words
            source = Path(temporary, "in.dcm")
            dataset.save_as(source)
            written, _, _ = deidentified(source, Path(temporary, "out"))
            ((path, clean),) = written.items()
            agents.append(str(clean.get("ContrastBolusAgent") or ""))
            notes.append(bench.read(path).codes)
    claims = {
        "empty stays empty": agents[0] == "",
        "NONE stays none": agents[1] in ("", "NONE"),
        "same notes, none of contrast": notes[0] == notes[1] == notes[2] and "contrast_agent" not in notes[0],
    }
    return Seen(f'agent "{agents[0]}"; NONE: "{agents[1]}"; no contrast note before or after', claims)


def uid_names(_: Bench, given: Path) -> Seen:
    """Each file gets the labels of its own row."""
    with TemporaryDirectory() as temporary:
        cache, more = Path(temporary, "cache"), ("--name", "case", "--license", "none", "--workers", 1)
        done = command(
            "prepare", "table", "--images", given / "img", "--labels", given / "l.csv", "--output", cache, *more
        )
        rows = open_cache(cache).manifest.set_index("image_id")
        found = {name: "".join(str(int(rows.at[name, label])) for label in LABELS) for name in rows.index}
    claims = {"own labels": found == {"1.2.7.1": "110000", "1.2.9": "000000"}, "exit code 0": done.returncode == 0}
    return Seen("; ".join(f"{name}: {labels}" for name, labels in sorted(found.items())), claims)


def any_contradicts(_: Bench, given: Path) -> Seen:
    """The table is refused, and the rows are named."""
    more = ("--output", given / "cache", "--name", "case", "--license", "none", "--workers", 1)
    done = command("prepare", "table", "--images", given / "img", "--labels", given / "l.csv", *more)
    said = done.stderr.decode()
    named = all(f"line {number} (IM{number - 2}" in said for number in (2, 3, 4))
    claims = {
        "exit code 1": done.returncode == 1,
        "rows named": named,
        "nothing written": not (given / "cache").exists(),
    }
    return Seen(said.partition(": ")[2].strip() or f"exit code {done.returncode}", claims)
