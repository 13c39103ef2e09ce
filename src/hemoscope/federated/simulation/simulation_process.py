"""``python -m hemoscope.federated.simulation.simulation_process``: one part of a simulation, in a process of its own.

Task in: JSON on stdin. Reports out: JSON lines on the pipe named in it. All else that is written here, by Flower,
Ray, or a traceback, is for the log.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any, TextIO, get_args

import torch
from flwr.simulation import run_simulation

from hemoscope.errors import HemoscopeError
from hemoscope.federated.deployment.processes import tie_to_parent
from hemoscope.federated.server.server_app import TrainingJob, make_server_app
from hemoscope.federated.settings.federation import parse_federation
from hemoscope.federated.simulation.poison import ScaledClient
from hemoscope.federated.simulation.simulated_nodes import NumberedIn, SimulatedClient, SimulatedSites, ask_numbers
from hemoscope.federated.simulation.simulation import PartTask, Poison
from hemoscope.federated.site.client_app import make_client_app

# A round's messages of all sites lie in shared memory at once; Ray moves what is too much to disk.
_OBJECT_STORE_BYTES = 512 << 20


def main() -> None:
    """Read the task, run it, report how it went."""
    tie_to_parent()
    task = PartTask(**json.load(sys.stdin))
    os.set_inheritable(task.pipe, False)  # so that the pipe ends with this process, whatever Ray leaves behind
    with open(task.pipe, "w", encoding="utf-8") as pipe:  # noqa: PTH123  a descriptor
        try:
            run_part(task, pipe)
        except HemoscopeError as error:
            _report(pipe, failed=str(error), kind=type(error).__name__)
            raise
        _report(pipe, failed="", kind="")


def run_part(task: PartTask, pipe: TextIO) -> None:
    """Run Flower's simulation until the server app has finished. Raises what the server app raises."""
    run = Path(task.run)
    job = TrainingJob(
        federation=parse_federation(task.federation),
        part=task.part,
        output=run,
        sites=task.sites,
        resume=task.resume,
        numbers=ask_numbers,
        show=lambda stage, done, total: _report(pipe, stage=stage, done=done, total=total),
    )
    wrong = {
        what: frozenset(_number(site) for site, how in task.poison.items() if how == what) for what in get_args(Poison)
    }
    client: Any = make_client_app(SimulatedSites(run=run, flipped=wrong["flip"]))
    if wrong["scale"]:
        client = ScaledClient(app=client, scaled=NumberedIn(wrong["scale"]))
    run_simulation(
        server_app=make_server_app(job),
        client_app=SimulatedClient(app=client),
        num_supernodes=task.sites,
        backend_config=_backend(task),
    )


def _backend(task: PartTask) -> dict[str, Any]:
    """Ray as Flower starts it: alone on this machine, no dashboard, one actor a processor by Ray's own count."""
    gpus = torch.cuda.device_count()
    return {
        "init_args": {
            "num_cpus": task.actors,
            "num_gpus": gpus,
            "include_dashboard": False,
            "object_store_memory": _OBJECT_STORE_BYTES,
            "_temp_dir": task.folder,
        },
        "client_resources": {"num_cpus": 1, "num_gpus": gpus / task.actors},
    }


def _number(site: str) -> int:
    return int(site.removeprefix("site-"))


def _report(pipe: TextIO, **message: Any) -> None:
    pipe.write(json.dumps(message) + "\n")
    pipe.flush()


if __name__ == "__main__":
    main()
