"""Fuzzing that coverage guides, by atheris (libFuzzer) where it is installed.

As a program, ``python -m tests.torture.coverage_guided KIND FOLDER SECONDS``, it is libFuzzer's process. Its corpus is
kept, so that later runs go on from what earlier ones reached.
"""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

from .tally import Count, Tally

_START_S = 180.0
_INSTRUMENTED = ["hemoscope", "pydicom", "nibabel", "tomllib"]


def available() -> bool:
    """Whether atheris is installed."""
    return importlib.util.find_spec("atheris") is not None


def fuzz_guided(tally: Tally, kind: str, seconds: float) -> Count:
    """Fuzz one target for so many seconds, from the corpus of the runs before."""
    folder = (tally.folder / "guided" / kind.replace(" ", "-")).absolute()
    (folder / "corpus").mkdir(parents=True, exist_ok=True)
    command = (sys.executable, "-m", "tests.torture.coverage_guided", kind, str(folder), f"{seconds:.0f}")
    root = Path(__file__).resolve().parents[2]
    try:
        done = subprocess.run(command, cwd=root, capture_output=True, timeout=seconds + _START_S, check=False)
    except subprocess.TimeoutExpired:
        sys.stderr.write(f"{kind}: libFuzzer did not end\n")
        return Count(found=1)
    said = done.stderr.decode(errors="replace") + done.stdout.decode(errors="replace")
    artifacts = sorted(path for path in folder.iterdir() if path.is_file())
    for path in artifacts:
        tally.keep(kind, path.name, path.read_bytes())
        tally.keep(kind, f"{path.name}.txt", said[-10000:].encode())
        path.unlink()
    executed = re.search(r"number_of_executed_units:\s*(\d+)", said)
    if executed is None and not artifacts:
        raise RuntimeError(f"{kind}: coverage-guided fuzzing could not start:\n{said[-3000:]}")
    if artifacts:
        sys.stderr.write(f"{kind}: {artifacts[0].name}\n{said[-1500:]}\n")
    return Count(done=int(executed[1]) if executed else 0, found=len(artifacts))


def main(kind: str, place: str, seconds: str) -> None:
    """Instrument what is imported, then let libFuzzer call the target until the time is up."""
    import atheris

    folder, work = Path(place), Path(place) / "work"
    work.mkdir(exist_ok=True)
    with atheris.instrument_imports(include=_INSTRUMENTED):
        from .fuzz_child import Fuzzer, seeds_of
        from .target import run_one
        from .targets import TARGETS

        target, seeds = TARGETS[kind], seeds_of(kind, folder.parents[1] / "fuzz" / folder.name)
        for seed in seeds:  # imports happen in the functions
            Fuzzer.clean(work)
            run_one(target, seed, work)
    for number, seed in enumerate(seeds):
        (folder / "corpus" / f"seed-{number:03d}").write_bytes(seed)

    def call(data: bytes) -> None:
        Fuzzer.clean(work)
        run_one(target, data, work)

    options = (f"-max_total_time={seconds}", "-print_final_stats=1", "-timeout=20", "-rss_limit_mb=4096")
    most = max(map(len, seeds))
    words = (*options, f"-artifact_prefix={folder}/", f"-max_len={2 * most + 1000}", str(folder / "corpus"))
    atheris.Setup([sys.argv[0], *words], call)
    atheris.Fuzz()


if __name__ == "__main__":
    main(*sys.argv[1:])
