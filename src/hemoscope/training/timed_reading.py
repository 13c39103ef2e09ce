"""``python -m hemoscope.training.timed_reading``: reads a series and times the forward passes; prints them as JSON.

The network runs in PyTorch eager, or in the engine that ``hemoscope predict`` uses. Reading and preprocessing are the
product's own for both, so that only the engines differ.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hemoscope.dicom.archive import open_archive, read_series
from hemoscope.dicom.series import choose_series
from hemoscope.inference.bundle import load_bundle
from hemoscope.inference.engine import Engine
from hemoscope.inference.preprocess import Preprocessing, model_input

# In the folder of the models: the bundle, and the same network for PyTorch.
BUNDLE, NETWORK, WEIGHTS = "bundle", "network.json", "weights.safetensors"
ENGINES = ("openvino", "torch")

Inputs = Iterable[NDArray[np.float32]]


def main(words: Sequence[str]) -> int:
    """Read the series; print ``forward_wall_ms`` and ``forward_cpu_ms``, means over its slices without the first."""
    parser = argparse.ArgumentParser()
    parser.add_argument("slices", type=Path)
    parser.add_argument("--engine", choices=ENGINES, required=True)
    parser.add_argument("--model", type=Path, required=True, help="folder of the models")
    parser.add_argument("--threads", type=int, required=True)
    arguments = parser.parse_args(words)
    bundle = load_bundle(arguments.model / BUNDLE)
    archive = open_archive([arguments.slices])
    series = choose_series(archive.studies[0]).series
    volume = read_series(archive, series, threads=arguments.threads).volume
    inputs = [model_input(volume, index, bundle.card.preprocessing) for index in range(len(volume))]
    if arguments.engine == "openvino":
        engine = Engine(bundle, threads=arguments.threads)
        found = timed(engine.run, inputs)
    else:
        found = timed(_eager(arguments.model, bundle.card.preprocessing, arguments.threads), inputs)
    sys.stdout.write(json.dumps(found))
    return 0


def timed(run: Callable[[Inputs], object], inputs: Sequence[NDArray[np.float32]]) -> dict[str, float]:
    """Time ``run`` over the inputs after the first, which pays for the start; of a single input, over that one."""
    if len(inputs) > 1:
        run(inputs[:1])
    rest = inputs[1:] or inputs
    wall, cpu = time.perf_counter(), time.process_time()
    run(rest)
    return {
        "forward_wall_ms": 1000 * (time.perf_counter() - wall) / len(rest),
        "forward_cpu_ms": 1000 * (time.process_time() - cpu) / len(rest),
    }


def _eager(folder: Path, preprocessing: Preprocessing, threads: int) -> Callable[[Inputs], None]:
    """The network in PyTorch eager, slice by slice. Imports only what that needs: Lightning would count against it."""
    import torch

    from hemoscope.training.models.checkpoint import load_weights
    from hemoscope.training.models.network import HemorrhageNetwork, NetworkConfig

    torch.set_num_threads(threads)
    config = NetworkConfig(**json.loads((folder / NETWORK).read_text()))
    network = HemorrhageNetwork(config, channels=preprocessing.channels, size=preprocessing.size)
    load_weights(network, folder / WEIGHTS)
    network.eval()

    def run(inputs: Inputs) -> None:
        with torch.inference_mode():
            for image in inputs:
                network(torch.from_numpy(image)[None])

    return run


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
