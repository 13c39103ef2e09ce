"""Write labels.csv, which ``hemoscope prepare ct-ich`` reads, from the files of CT-ICH as PhysioNet ships them.

    python examples/ct_ich_labels.py CT_ICH_FOLDER

The folder holds ``hemorrhage_diagnosis.csv`` (one row a slice) and, at any depth, ``049/brain/1.jpg``,
``049/bone/1.jpg`` and, for a slice with a hemorrhage, ``049/brain/1_HGE_Seg.jpg``. An existing labels.csv is
replaced, and nothing else.
"""

import argparse
import csv
from pathlib import Path

TYPES = ("epidural", "intraparenchymal", "intraventricular", "subarachnoid", "subdural")
COLUMNS = ("image_id", "patient_id", "slice", "brain_file", "bone_file", "mask_file", "any", *TYPES)


def main() -> None:
    """Read the folder given on the command line and write its labels.csv."""
    parser = argparse.ArgumentParser(description="Write labels.csv for CT-ICH as PhysioNet ships it.")
    parser.add_argument("folder", type=Path, metavar="CT_ICH_FOLDER")
    folder = parser.parse_args().folder
    found = sorted(folder.glob("hemorrhage_diagnosis*.csv"))
    if not found:
        parser.error("no hemorrhage_diagnosis.csv here: give the unpacked folder of CT-ICH, version 1.3.0 or earlier")
    images = {path.parts[-3:]: path for path in folder.rglob("*.jpg")}
    with found[0].open(newline="", encoding="utf-8-sig") as stream:
        rows = [row_of(diagnosis, images, folder) for diagnosis in csv.DictReader(stream)]
    rows = [row for row in rows if row["brain_file"]]
    with (folder / "labels.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    print(f"{len(rows)} slices in labels.csv")


def row_of(diagnosis: dict[str, str], images: dict[tuple[str, ...], Path], folder: Path) -> dict[str, object]:
    """One slice of the release as a row of labels.csv."""
    patient, number = f"{int(diagnosis['PatientNumber']):03d}", int(diagnosis["SliceNumber"])

    def file(window: str, name: str) -> str:
        path = images.get((patient, window, name))
        return "" if path is None else path.relative_to(folder).as_posix()

    types = {name: int(diagnosis[name.capitalize()]) for name in TYPES}
    return {
        "image_id": f"ctich_{patient}_{number:03d}",
        "patient_id": f"ctich_{patient}",
        "slice": number,
        "brain_file": file("brain", f"{number}.jpg"),
        "bone_file": file("bone", f"{number}.jpg"),
        "mask_file": file("brain", f"{number}_HGE_Seg.jpg"),
        "any": max(types.values()),
        **types,
    }


if __name__ == "__main__":
    main()
