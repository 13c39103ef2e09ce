"""``deploy/check_sbom.py SBOM PINS``: fails unless the SBOM lists every pin, in its version and with a licence."""

import json
import re
import sys
from pathlib import Path

Component = dict[str, object]


def canonical(name: str) -> str:
    """A distribution's name as indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def faults(sbom: Path, pins: Path) -> list[str]:
    """What is missing, by package."""
    components = {canonical(one["name"]): one for one in json.loads(sbom.read_text())["components"]}
    found = []
    for pin in pins.read_text().splitlines():
        if not pin or pin.startswith("#"):
            continue
        name, _, version = pin.partition("==")
        component = components.get(canonical(name))
        if component is None or component["version"] != version:
            found.append(f"{pin} is not listed")
        elif not component.get("licenses"):
            found.append(f"{pin} has no licence")
    return found


if __name__ == "__main__":
    found = faults(Path(sys.argv[1]), Path(sys.argv[2]))
    sys.exit("\n".join(found) or 0)
