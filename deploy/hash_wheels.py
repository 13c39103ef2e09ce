"""``deploy/hash_wheels.py WHEELS``: prints what ``pip install --require-hashes -r`` takes, of a folder's wheels."""

import hashlib
import sys
from pathlib import Path

HEAD = """\
# The base install with the SHA-256 of every file, for Python 3.11 on Linux x86-64: the versions of base.txt.
# Written by `make hashes`. Install: pip install --no-deps --require-hashes -r constraints/base.hashes.txt"""


def line(wheel: Path) -> str:
    """A requirement that only this file meets; a wheel's name begins with distribution and version."""
    name, version, *_tags = wheel.name.split("-")
    return f"{name.replace('_', '-')}=={version} --hash=sha256:{hashlib.sha256(wheel.read_bytes()).hexdigest()}"


if __name__ == "__main__":
    wheels = sorted(Path(sys.argv[1]).glob("*.whl"), key=lambda one: one.name.lower())
    print("\n".join([HEAD, *map(line, wheels)]))
