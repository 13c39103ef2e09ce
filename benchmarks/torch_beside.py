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
from hemoscope.training.models.network import HemorrhageNetwork, reading_network

Forward = Callable[[NDArray[np.float32]], NDArray[np.float32]]


def eager(bundle: ModelBundle, experiment: str) -> Forward:
    """Return the network of a bundle in PyTorch: the weights are those of its graph, by their names."""
    recipe = read_experiment(Path(experiment))
    reading = recipe.reading_preprocessing
    network = HemorrhageNetwork(recipe.network, channels=reading.channels, size=recipe.preprocessing.size)
    module = reading_network(network, mirror=recipe.reading.mirror).eval()
    graph = onnx.load_model_from_string(bundle.read_graph()).graph
    stored = {tensor.name: torch.from_numpy(numpy_helper.to_array(tensor).copy()) for tensor in graph.initializer}
    state = {name: tensor for name, tensor in network.state_dict().items() if not name.endswith("num_batches_tracked")}
    prefix = "network." * (1 + (module is not network))
    network.load_state_dict({name: stored[prefix + name] for name in state}, strict=False)

    def forward(image: NDArray[np.float32]) -> NDArray[np.float32]:
        with torch.inference_mode():
            return np.asarray(module(torch.from_numpy(image)[None])[0][0])

    return forward


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
