"""PixelMed's validator, which checks the content of templates, on a report and a key object selection."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from hemoscope.cli import main
from hemoscope.testing.dicom_writer import write_series
from hemoscope.testing.phantom import make_phantom

pytestmark = pytest.mark.reference_tool("java")
CLASSES = Path("/usr/share/java")
# Context group 100 holds no plain CT of the head.
KNOWN = 'Code (24725-4,LN,"CT Head") not found in context group 100'


def test_pixelmed_finds_no_error_but_the_procedure(
    tmp_path: Path, tiny_bundle: Path, reference_tool: Callable[[str], Path]
) -> None:
    if not (CLASSES / "pixelmed.jar").exists():
        pytest.skip("PixelMed is not installed: apt-get install libpixelmed-java")
    write_series(make_phantom(seed=2, shape=(4, 64, 64)), tmp_path / "images")
    main(["predict", str(tmp_path / "images"), "--model", str(tiny_bundle), "--dicom", str(tmp_path / "objects")])
    limits = [f"-Djdk.xml.xpath{kind}Limit=0" for kind in ("ExprOp", "TotalOp", "ExprGrp")]
    documents = [path for path in (tmp_path / "objects").rglob("*.dcm") if path.name != "pictures.dcm"]
    assert documents
    for path in documents:
        command = [reference_tool("java"), *limits, "-cp", f"{CLASSES}/*", "com.pixelmed.validate.DicomSRValidator"]
        done = subprocess.run([*command, path], capture_output=True, text=True, timeout=280, check=True)
        said = (done.stdout + done.stderr).splitlines()
        assert "IOD validation complete" in said
        assert [line for line in said if "Error" in line and KNOWN not in line] == []
