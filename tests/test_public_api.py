"""``import hemoscope``: what it offers, that it is quick, complete and typed."""

import ast
import dataclasses
import importlib
import inspect
import os
import re
import subprocess
import sys
import typing
from collections.abc import Iterator
from pathlib import Path

import pytest

import hemoscope

REPOSITORY = Path(__file__).resolve().parents[1]
PINNED = """
    DISCLAIMER LABELS SUBTYPES
    Archive Box BundleError ConfigError DecodedSeries DicomReadError Finding GeometryError HeatMap Hemorrhage
    HemoscopeError HounsfieldVolume ImageKind MissingExtraError ModelBundle ModelCard NiftiError PerLabel Prediction
    Predictor Preprocessing QualityNote ReadLimits Rejected Series SeriesError SkippedSeries SliceFindings SliceHeader
    SliceRef Stage Study StudyFindings StudyOutcome StudyProbabilities StudyReading Triage UnreadSlices
    __version__ load_model open_archive predict read_nifti read_series
"""
# What stands in a model's card has a module of its own; engines, sources and calibrations are no values to look at.
INTERNAL = {
    "hemoscope.inference.card",
    "hemoscope.inference.calibration",
    "hemoscope.inference.engine",
    "hemoscope.inference.windows",
    "hemoscope.dicom.containers",
    "hemoscope.dicom.read_budget",
    "hemoscope.dicom.kept_images",
    "hemoscope.dicom.sources",
    "hemoscope.progress",
}


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def classes_in(annotation: object) -> Iterator[type]:
    """The package's own classes in an annotation, however deep."""
    if inspect.isclass(annotation) and annotation.__module__.startswith("hemoscope."):
        yield annotation
    for argument in typing.get_args(annotation):
        yield from classes_in(argument)


def classes_returned_by(public: object) -> Iterator[type]:
    """What a function, or a class's fields and public methods, give to the caller."""
    names = {"pd": importlib.import_module("pandas")}
    if dataclasses.is_dataclass(public):
        for annotation in typing.get_type_hints(public, localns=names).values():
            yield from classes_in(annotation)
    functions = [member for name, member in vars(public).items() if not name.startswith("_")]
    for function in [*functions, public] if inspect.isclass(public) else [public]:
        called = function.fget if isinstance(function, property) else getattr(function, "__func__", function)
        if inspect.isfunction(called):
            yield from classes_in(typing.get_type_hints(called, localns=names).get("return"))


def errors_named_in(docstring: str) -> set[str]:
    section = docstring.partition("Raises:\n")[2].partition("\n\n")[0]
    return set(re.findall(r"^\s+(\w+Error): ", section, re.MULTILINE))


def test_the_public_names_are_those_that_are_pinned() -> None:
    assert sorted(hemoscope.__all__) == sorted(PINNED.split())


def test_every_public_name_is_there_and_documented() -> None:
    for name in hemoscope.__all__:
        public = getattr(hemoscope, name)
        if callable(public):
            assert inspect.getdoc(public), name


def test_what_public_functions_return_is_public() -> None:
    for name in hemoscope.__all__:
        public = getattr(hemoscope, name)
        if not callable(public) or (inspect.isclass(public) and public.__module__ in INTERNAL):
            continue
        hidden = {one for one in classes_returned_by(public) if one.__module__ not in INTERNAL}
        assert {one.__name__ for one in hidden} <= set(hemoscope.__all__), name


def test_what_public_functions_raise_is_public() -> None:
    for name in hemoscope.__all__:
        public = getattr(hemoscope, name)
        documented = [public, *vars(public).values()] if inspect.isclass(public) else [public]
        for one in documented:
            raised = errors_named_in(inspect.getdoc(one) or "") - {"ValueError", "IndexError"}
            assert raised <= set(hemoscope.__all__), name


def test_type_checkers_are_told_the_module_that_is_imported() -> None:
    tree = ast.parse(Path(hemoscope.__file__).read_text())
    told = {
        alias.name: node.module
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("hemoscope.")
        for alias in node.names
    }
    assert set(told) == set(hemoscope.__all__)
    assert {name: told[name] for name in hemoscope._MODULE_OF} == hemoscope._MODULE_OF


def test_star_import_and_completion_give_the_public_names() -> None:
    names: dict[str, object] = {}
    exec("from hemoscope import *", names)
    assert set(hemoscope.__all__) <= set(names)
    assert set(hemoscope.__all__) <= set(run("import hemoscope; print(*dir(hemoscope))").split())


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'hemoscope' has no attribute 'detect'"):
        hemoscope.detect  # noqa: B018


def test_importing_loads_neither_numpy_nor_an_engine() -> None:
    loaded = run("import sys, hemoscope; dir(hemoscope); print(*sys.modules)").split()
    assert not {"numpy", "openvino", "pydicom", "PIL", "pandas", "nibabel", "scipy"} & set(loaded)


def test_importing_takes_less_than_three_tenths_of_a_second() -> None:
    code = "from time import process_time as t; a = t(); import hemoscope; print(t() - a)"
    assert min(float(run(code)) for _ in range(3)) < 0.3  # seconds of the processor, whoever else is at work


def test_the_command_runs_as_a_module() -> None:
    words = [sys.executable, "-m", "hemoscope", "--version"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout == f"hemoscope {hemoscope.__version__}\n"
    done = subprocess.run([*words[:-1], "predict"], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 2
    assert "usage: hemoscope predict" in done.stderr


def test_a_users_code_is_type_checked(tmp_path: Path) -> None:
    consumer = Path(__file__).parent / "typing" / "consumer.py"
    wrong = tmp_path / "wrong.py"
    wrong.write_text("import hemoscope\n\nhemoscope.predict(3)\n")
    words = [sys.executable, "-m", "mypy", "--strict", "--config-file", os.devnull, "--follow-imports", "silent"]
    words += ["--ignore-missing-imports", "--cache-dir", str(REPOSITORY / ".mypy_cache" / "consumer")]
    done = subprocess.run(
        [*words, str(consumer), str(wrong)], capture_output=True, text=True, timeout=280, check=False, cwd=tmp_path
    )
    (error,) = (line for line in done.stdout.splitlines() if ": error: " in line)
    assert error.startswith("wrong.py:3: ")
    assert 'Argument 1 to "predict" has incompatible type "int"' in error
