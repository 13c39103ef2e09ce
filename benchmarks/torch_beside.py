"""The other side of ``study.py``: the same network in PyTorch eager, slice by slice, as one would write it at first."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pydicom
import torch
from numpy.typing import NDArray
from onnx import numpy_helper

from hemoscope.inference.bundle import ModelBundle
from hemoscope.inference.preprocess import Preprocessing, head_box, resized, windowed
from hemoscope.training.experiment import read_experiment
from hemoscope.training.models.checkpoint import load_weights
from hemoscope.training.models.network import HemorrhageNetwork, reading_network

Forward = Callable[[NDArray[np.float32]], NDArray[np.float32]]


def eager(bundle: ModelBundle, experiment: str, *, weights: Path | None = None) -> Forward:
    """Return the network of a bundle in PyTorch, with the weights of its graph, by their names.

    ``weights`` is the file that the graph was exported from, where exporting has merged weights: a network that sees a
    slice once has its batch normalization in its convolutions.
    """
    torch.set_num_threads(1)  # threads that wait for work in a loop would count as processor time
    recipe = read_experiment(Path(experiment))
    reading = recipe.reading_preprocessing
    network = HemorrhageNetwork(recipe.network, channels=reading.channels, size=recipe.preprocessing.size)
    module = reading_network(network, mirror=recipe.reading.mirror).eval()
    if weights is None:
        prefix, stored = "network." * (1 + (module is not network)), _of_graph(bundle)
        network.load_state_dict({name: stored[prefix + name] for name in _names(network)}, strict=False)
    else:
        load_weights(network, weights)

    def forward(image: NDArray[np.float32]) -> NDArray[np.float32]:
        with torch.inference_mode():
            return np.asarray(module(torch.from_numpy(image)[None])[0][0])

    return forward


def _of_graph(bundle: ModelBundle) -> dict[str, torch.Tensor]:
    graph = onnx.load_model_from_string(bundle.read_graph()).graph
    return {tensor.name: torch.from_numpy(numpy_helper.to_array(tensor).copy()) for tensor in graph.initializer}


def _names(network: HemorrhageNetwork) -> list[str]:
    return [name for name in network.state_dict() if not name.endswith("num_batches_tracked")]


def read_and_score(files: list[Path], forward: Forward, preprocessing: Preprocessing) -> NDArray[np.float32]:
    """Decode each file with pydicom, prepare and score it: logits, slices from feet to head."""
    datasets = sorted((pydicom.dcmread(file) for file in files), key=lambda one: float(one.ImagePositionPatient[2]))
    scores = []
    for dataset in datasets:
        hounsfield = dataset.pixel_array * float(dataset.RescaleSlope) + float(dataset.RescaleIntercept)
        box = head_box(hounsfield, margin=preprocessing.margin)
        image = windowed(resized(hounsfield, box, preprocessing.size), preprocessing)
        scores.append(forward(image))
    return np.array(scores)
