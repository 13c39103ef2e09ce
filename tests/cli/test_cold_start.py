"""What a command imports decides how fast it starts: nothing heavy for a help text, and nothing unused for a slice."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

SAMPLE = Path(__file__).resolve().parents[2] / "examples" / "sample" / "ct-ich-077-16.dcm"
HEAVY = {"numpy", "scipy", "PIL", "pydicom", "openvino", "rich", "sqlalchemy", "fastapi", "pandas", "torch", "gdcm"}
# Of other commands and outputs, and of what OpenVINO's converter and telemetry would bring.
UNUSED = {
    "alembic",
    "fastapi",
    "highdicom",
    "jinja2",
    "matplotlib",
    "onnxruntime",
    "openvino_telemetry",
    "pandas",
    "gdcm",
    "pydantic",
    "pydicom",
    "pynetdicom",
    "reportlab",
    "scipy",
    "sklearn",
    "sqlalchemy",
    "torch",
    "uvicorn",
}
CODE = """
import sys
from hemoscope.cli import main
try:
    main({arguments!r})
except SystemExit:
    pass
sys.stdout.flush()
print()
print(sorted(name for name, module in sys.modules.items() if module is not None))
"""


def loaded(*arguments: str) -> set[str]:
    """The modules that a command leaves imported in a fresh interpreter."""
    done = subprocess.run(
        [sys.executable, "-I", "-c", CODE.format(arguments=list(arguments))],
        capture_output=True,
        text=True,
        timeout=240,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=True,
    )
    return set(ast.literal_eval(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize("arguments", [("--help",), ("predict", "--help"), ("serve", "--help"), ("--version",)])
def test_a_help_text_imports_nothing_heavy(arguments: tuple[str, ...]) -> None:
    assert not {name.partition(".")[0] for name in loaded(*arguments)} & HEAVY


def test_predicting_a_slice_imports_nothing_that_it_does_not_use() -> None:
    modules = loaded("predict", str(SAMPLE), "--format", "json")
    assert "openvino" in modules
    assert not {name.partition(".")[0] for name in modules} & UNUSED
    # Only for results in DICOM, pictures and folders, which were not asked for.
    assert not {"hemoscope.reports.dicom_results.files", "hemoscope.reports.overlays"} & modules
    assert "hemoscope.reports.output_folder" not in modules
