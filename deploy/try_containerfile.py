"""Runs the steps of ``deploy/Containerfile`` in a clean Debian made by mmdebstrap, starts it, and asks ``/health``.

``deploy/try_containerfile.py [ROOT]`` needs root, mmdebstrap, and the folders that the Containerfile copies. It needs
no image registry and no container engine: each RUN is a command in the new root, in namespaces of its own. The server
then runs as the Containerfile's user on a root mounted read-only, with its volumes and /tmp alone to write to.
"""

import json
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

CONTEXT = Path(__file__).resolve().parents[1]
PATIENCE_S = 300.0
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_IGNORED = {"EXPOSE", "LABEL"}


@dataclass(kw_only=True)
class Image:
    """What the steps so far have made."""

    root: Path
    environment: dict[str, str] = field(default_factory=lambda: {"PATH": PATH, "HOME": "/"})
    user: str = "root"
    folder: str = "/"
    volumes: list[str] = field(default_factory=list)
    entrypoint: list[str] = field(default_factory=list)
    command: list[str] = field(default_factory=list)

    def process(self, *words: str, setup: str = "") -> list[str]:
        """The command that runs words in the root, after ``setup`` in the same mount namespace."""
        inside = ["env", "-i", *(f"{name}={value}" for name, value in self.environment.items()), *words]
        root, program = shlex.quote(str(self.root)), f"cd {shlex.quote(self.folder)} && exec {shlex.join(inside)}"
        changed = f"exec chroot --userspec={self.user} {root} /bin/sh -c {shlex.quote(program)}"
        script = f"set -e; mount -t proc proc {root}/proc; {setup}{changed}"
        return ["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", script]


def steps(text: str) -> Iterator[tuple[str, str]]:
    """The instructions of a Containerfile, continued lines joined."""
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    for line in "\n".join(lines).replace("\\\n", " ").splitlines():
        word, _, rest = line.strip().partition(" ")
        yield word.upper(), rest.strip()


def apply(image: Image, word: str, rest: str) -> None:
    """Do one step; an instruction that is not known here ends the program."""
    if word == "FROM":
        suite = re.fullmatch(r"debian:(\w+)-slim", rest)
        if suite is None:
            sys.exit(f"FROM {rest}: only debian:SUITE-slim can be made here")
        subprocess.run(["mmdebstrap", "--quiet", "--variant=minbase", suite[1], str(image.root)], check=True)
        shutil.copy("/etc/resolv.conf", image.root / "etc" / "resolv.conf")
    elif word == "RUN":
        subprocess.run(image.process("/bin/sh", "-ec", rest), check=True, stdin=subprocess.DEVNULL)
    elif word == "COPY":
        copy(image, *shlex.split(rest))
    elif word == "ENV":
        image.environment |= dict(pair.split("=", 1) for pair in shlex.split(rest))
    elif word in ("USER", "WORKDIR"):
        setattr(image, "user" if word == "USER" else "folder", rest)
    elif word == "VOLUME":
        image.volumes.append(rest)
    elif word in ("ENTRYPOINT", "CMD"):
        setattr(image, "entrypoint" if word == "ENTRYPOINT" else "command", json.loads(rest))
    elif word not in _IGNORED:
        sys.exit(f"{word}: not known here")


def copy(image: Image, *words: str) -> None:
    """COPY from the clone; a folder is copied with what is in it, as a container engine does."""
    *patterns, target = words
    place = image.root / target.lstrip("/")
    for pattern in patterns:
        found = sorted(CONTEXT.glob(pattern.rstrip("/")))
        if not found:
            sys.exit(f"COPY {pattern}: there is none. Run: make dist wheels")
        for path in found:
            place.mkdir(parents=True, exist_ok=True)
            if path.is_dir():
                shutil.copytree(path, place, dirs_exist_ok=True)
            else:
                shutil.copy(path, place)


def start(image: Image, *words: str) -> subprocess.Popen[str]:
    """Start the entrypoint on a read-only root with its volumes and a /tmp of its own."""
    root = shlex.quote(str(image.root))
    data = [f"mount --bind {root}{one} {root}{one}; mount -o remount,rw,bind {root}{one}" for one in image.volumes]
    read_only = [f"mount --bind {root} {root}", f"mount -o remount,ro,bind {root}"]
    lines = [*read_only, *data, f"mount -t proc proc {root}/proc", f"mount -t tmpfs tmpfs {root}/tmp"]
    command = image.process(*image.entrypoint, *(words or image.command), setup="; ".join(lines) + "; ")
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def check(image: Image) -> None:
    """Refuse an image whose user is root, or can change the code."""
    writable = "find /opt /usr /etc -xdev -writable -not -type l -print -quit 2>/dev/null"
    probe = f'test "$(id -u)" -ne 0 && test -z "$({writable})"'
    subprocess.run(image.process("/bin/sh", "-ec", probe), check=True)


def answers(url: str, path: str) -> bool:
    """Whether a path answers 200."""
    try:
        with urllib.request.urlopen(url + path, timeout=10) as answer:
            return bool(answer.status == 200)
    except urllib.error.URLError:
        return False


def main(root: Path) -> None:
    """Do every step, start the server, and wait for ``/health`` and ``/ready``."""
    image = Image(root=root)
    for word, rest in steps((CONTEXT / "deploy" / "Containerfile").read_text()):
        print(f"{word} {rest}", flush=True)
        apply(image, word, rest)
    check(image)
    server, end = start(image, "serve", "--port", "0"), time.monotonic() + PATIENCE_S
    try:
        line = server.stdout.readline() if server.stdout else ""
        found = re.search(r"http://\S+", line)
        if found is None:
            sys.exit("the server did not start")
        for path in ("/health", "/ready"):
            while not answers(found[0], path):
                if time.monotonic() > end:
                    sys.exit(f"{path} does not answer 200")
                time.sleep(0.5)
            print(f"{path} answers 200", flush=True)
    finally:
        server.terminate()
        server.wait()


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory(prefix="hemoscope-root-") as made:
            main(Path(made) / "root")
