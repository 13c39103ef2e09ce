"""``python -P -m hemoscope.training.measured_process COMMAND...``: prints a command's time and peak memory as JSON.

A process of its own: on Linux the peak memory of a child counts that of the process that started it until it runs the
command, so a process that holds PyTorch could not measure a small one. Only the standard library is imported here.
"""

import json
import os
import subprocess
import sys
import tempfile
import time

# The unit of ru_maxrss in bytes.
_UNIT = 1 if sys.platform == "darwin" else 1024


def main(command: list[str]) -> int:
    """Run the command and print wall and processor seconds, peak memory in bytes, exit code and both outputs."""
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        start = time.perf_counter()
        process = subprocess.Popen(command, stdout=output, stderr=errors)  # noqa: S603  # our own command
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        errors.seek(0)
        found = {
            "wall_s": wall,
            "cpu_s": usage.ru_utime + usage.ru_stime,
            "peak_bytes": usage.ru_maxrss * _UNIT,
            "exit_code": process.returncode,
            "output": output.read().decode(errors="replace"),
            "errors": errors.read().decode(errors="replace"),
        }
    sys.stdout.write(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
