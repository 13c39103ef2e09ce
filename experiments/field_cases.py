"""Reads every field case, an input that was once read wrongly, and prints what is right and what is seen now.

    python experiments/field_cases.py FOLDER [--output FILE]

``FOLDER`` holds the cases and a README with the condition of each. A case passes if all of its checks hold
(``field_case_list.py``, ``field_case_checks.py``). Where a probability is right, it is that of the same slices alone or
stored plainly, read in the same run. Prints a table in Markdown and, with ``--output``, writes it. Exits with 1 if a
case fails or has no check.
"""

import argparse
import re
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

from field_case_list import CASES, Case
from field_case_reading import Bench, Seen
from rich.console import Console
from rich.progress import track

from hemoscope.errors import HemoscopeError
from hemoscope.inference.inputs import load_model

GIVEN_AS_ARCHIVE = {"mip_beside_plain", "two_thickness_5_10", "orientation_at_rounding_edge", "perfusion_4d_8x10"}


def unpacked(source: Path, folder: Path) -> Path:
    """Return the case as a program is given it: a file, an archive, or the folder that it is unpacked to."""
    if source.suffix == ".zip" and source.stem not in GIVEN_AS_ARCHIVE:
        with zipfile.ZipFile(source) as zipped:
            zipped.extractall(folder)  # noqa: S202 - cases are trusted
        return folder
    if source.suffix == ".gz":
        with tarfile.open(source, errors="surrogateescape") as tar:
            tar.extractall(folder, filter="data")
        return folder
    return source


def seen_of(case: Case, bench: Bench, source: Path) -> Seen:
    """Read one case; an answer that the checks cannot even look at is a failure too."""
    with tempfile.TemporaryDirectory() as temporary:
        given = Path(temporary, "case")
        given.mkdir()
        try:
            return case.check(bench, unpacked(source, given))
        except (HemoscopeError, ValueError, LookupError, AttributeError) as error:
            return Seen(f"{type(error).__name__}", {"can be checked": False})


def rows(folder: Path) -> Iterator[tuple[Case, Seen]]:
    """Yield each case of the folder with what was seen; a case without a check fails."""
    sources = {
        re.sub(r"\.(zip|tar\.gz|dcm|bin)$", "", path.name): path
        for path in sorted(folder.iterdir())
        if path.suffix != ".md"
    }
    bench = Bench(load_model(threads=1, precision="float32"), plain=sources["gbk_names"])
    for case in track(CASES, description="cases", console=Console(stderr=True)):
        source = sources.get(case.name)
        yield case, seen_of(case, bench, source) if source else Seen("not in the folder", {"is there": False})
    for name in sorted(sources.keys() - {case.name for case in CASES}):
        unknown = Case(name=name, condition="", right="", check=lambda *_: Seen("", {}))
        yield unknown, Seen("no check of this case", {"has a check": False})


def table(found: list[tuple[Case, Seen]]) -> list[str]:
    """Return the lines of a Markdown table."""
    lines = ["| case | condition | right | seen | pass |", "|---|---|---|---|---|"]
    for case, seen in found:
        failed = "".join(f"; FAILED: {claim}" for claim in seen.failed)
        verdict = "**no**" if seen.failed else "yes"
        lines.append(f"| {case.name} | {case.condition} | {case.right} | {seen.text}{failed} | {verdict} |")
    return lines


def main() -> None:
    """Parse the command line, check every case and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--output", type=Path, help="write the table to this file")
    arguments = parser.parse_args()
    found = list(rows(arguments.folder))
    passed = sum(not seen.failed for _, seen in found)
    text = "\n".join([*table(found), "", f"{passed} of {len(found)} pass."])
    Console().print(text, markup=False, soft_wrap=True)
    if arguments.output is not None:
        arguments.output.write_text(f"{text}\n")
    sys.exit(passed < len(found))


if __name__ == "__main__":
    main()
