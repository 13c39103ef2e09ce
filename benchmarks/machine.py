"""What the machine of a benchmark is, and what it can do at most: the numbers from which limits are computed."""

import os
import platform
import re
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median

import numpy as np

_LIBRARIES = ("numpy", "scipy", "pydicom", "openvino", "torch", "scikit-learn", "pandas", "pyarrow")
_VECTORS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8")
_MEGABYTES = 256
_SIDE = 2048
_TIMES = 5
_BUSY = 0.3  # load in the last minute from which on the machine counts as busy


@dataclass(frozen=True, kw_only=True)
class Ceiling:
    """The most that this machine does of one thing, measured."""

    what: str
    value: float
    unit: str


def describe() -> dict[str, str]:
    """Return what a reader must know of the machine, measured before anything runs."""
    allowed = len(os.sched_getaffinity(0))
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {
        "processor": _processor(),
        "cores": f"{allowed} of {os.cpu_count()}",
        "memory": f"{pages / 1e9:.0f} GB",
        "commit": _commit(),
        "system": f"{platform.system()} {platform.release()}",
        "Python": platform.python_version(),
        "libraries": ", ".join(f"{name} {found}" for name in _LIBRARIES if (found := _version(name))),
        "load before the start": f"{os.getloadavg()[0]:.2f}",
    }


def warnings(described: dict[str, str]) -> list[str]:
    """Return what a reader must be warned of: a busy machine measures its other programs."""
    load = float(described["load before the start"])
    if load <= _BUSY:
        return []
    return [f"**Not idle: the load was {load:.2f} before the start. Wall times, and ratios of them, do not count.**"]


def ceilings(progress: Callable[[str], None]) -> list[Ceiling]:
    """Measure the ceilings, in about half a minute."""
    progress("the machine's own ceilings...")
    return [
        Ceiling(what="copying memory, one thread (bytes read)", value=_copy_rate(), unit="GB/s"),
        Ceiling(what="reading a file that is not in memory", value=_read_rate(), unit="MB/s"),
        *_products(),
    ]


def _copy_rate() -> float:
    source = np.ones(_MEGABYTES << 20, dtype=np.uint8)
    target = np.empty_like(source)
    return source.nbytes / _seconds(lambda: np.copyto(target, source)) / 1e9


def _read_rate() -> float:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "file"
        content = np.random.default_rng(0).bytes(1 << 20)  # a file of zeros may take no place on the disk
        with path.open("wb") as stream:
            for _ in range(_MEGABYTES):
                stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        return _MEGABYTES * 1.048576 / _seconds(lambda: _read(path), times=3)


def _read(path: Path) -> None:
    with path.open("rb", buffering=0) as stream:
        os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        buffer = bytearray(1 << 20)
        while stream.readinto(buffer):
            pass


def _products() -> Iterator[Ceiling]:
    """Multiply two matrices with every library that Hemoscope computes with, on all cores."""
    operations = 2 * _SIDE**3
    for name, multiply in (("NumPy, float32", _numpy_product), *_openvino_products(), *_torch_products()):
        seconds = _seconds(multiply)
        yield Ceiling(what=f"matrix product, {name}", value=operations / seconds / 1e9, unit="GFLOP/s")


def _numpy_product() -> None:
    np.matmul(_MATRIX, _MATRIX)


def _openvino_products() -> Iterator[tuple[str, Callable[[], None]]]:
    import openvino as ov
    from openvino import opset13 as ops

    left = ops.parameter([_SIDE, _SIDE], dtype=np.float32)
    model = ov.Model([ops.matmul(left, ops.constant(_MATRIX), False, False)], [left])
    for name, precision in (("float32", "f32"), ("bf16", "bf16")):
        options = {"INFERENCE_PRECISION_HINT": precision, "PERFORMANCE_HINT": "LATENCY", "ENABLE_CPU_PINNING": False}
        request = ov.Core().compile_model(model, "CPU", options).create_infer_request()
        request.set_input_tensor(ov.Tensor(_MATRIX))
        yield f"OpenVINO, {name}", request.infer


def _torch_products() -> Iterator[tuple[str, Callable[[], None]]]:
    try:
        import torch
    except ImportError:
        return
    for name, kind in (("float32", torch.float32), ("bf16", torch.bfloat16)):
        matrix = torch.from_numpy(_MATRIX).to(kind)
        out = torch.empty_like(matrix)

        def multiply(matrix: torch.Tensor = matrix, out: torch.Tensor = out) -> None:
            torch.matmul(matrix, matrix, out=out)

        yield f"PyTorch, {name}", multiply


def _seconds(call: Callable[[], object], times: int = _TIMES) -> float:
    """Return the median wall time, after one call that is not counted."""
    call()
    found = []
    for _ in range(times):
        start = time.perf_counter()
        call()
        found.append(time.perf_counter() - start)
    return median(found)


def _commit() -> str:
    """Return what is measured: the commit, and whether files differ from it."""
    git = ["git", "-C", str(Path(__file__).parent)]
    try:
        head = subprocess.run([*git, "rev-parse", "--short", "HEAD"], check=True, capture_output=True, text=True)  # noqa: S603
        changed = subprocess.run([*git, "status", "--porcelain", "-uno"], check=True, capture_output=True, text=True)  # noqa: S603
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return head.stdout.strip() + (", with changes" if changed.stdout.strip() else "")


def _processor() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.processor() or platform.machine()
    name = re.search(r"^model name\s*: (.+)$", text, re.MULTILINE)
    flags = re.search(r"^flags\s*: (.+)$", text, re.MULTILINE)
    numbers = re.findall(r"^(cpu family|model|stepping)\s*: (\d+)$", text, re.MULTILINE)[:3]
    wide = [flag for flag in _VECTORS if flags and flag in flags[1].split()]
    named = " ".join([name[1] if name else platform.machine(), *(f"{what} {number}" for what, number in numbers)])
    return f"{named} ({', '.join(wide) or 'no wide vectors'})"


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


_MATRIX = np.random.default_rng(0).random((_SIDE, _SIDE), dtype=np.float32)
