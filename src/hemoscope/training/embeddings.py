"""Embeddings and logits of every slice of a series, stored on disk: the training data of the sequence network.

The slice network was trained on these slices, so it is more confident on them than on new ones. Each series is
therefore stored in several views: as served (with ``reading.mirror`` the mean of the slice and its mirror image), each
of the two alone, and augmented views. There is one file per series, written atomically, so that an interrupted
extraction can resume.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample
from torch.utils.data import DataLoader, Dataset

from hemoscope.data.cache import Cache
from hemoscope.errors import TrainingError
from hemoscope.files import atomic_path
from hemoscope.inference.card import to_plain
from hemoscope.inference.preprocess import model_input
from hemoscope.progress import Progress
from hemoscope.training.augment import AugmentConfig
from hemoscope.training.experiment import Experiment
from hemoscope.training.models.network import HemorrhageNetwork
from hemoscope.training.tensor_files import load_tensors, save_tensors

FOLDER = "embeddings"
_FORMAT = 2
_BATCH = 16


@dataclass(frozen=True, slots=True)
class EmbeddedSeries:
    """V views of all slices of one series, from feet to head; the first view is the one used in serving.

    ``embeddings`` float32 (V, T, D); ``logits`` float32 (V, T, 6), raw, in label order; ``positions_mm`` of each
    slice, or None.
    """

    embeddings: Tensor
    logits: Tensor
    positions_mm: tuple[float | None, ...]


class EmbeddingStore:
    """Embeddings of series by one network at the reading size, in a folder named by a hash of the inputs."""

    def __init__(
        self, network: HemorrhageNetwork, experiment: Experiment, cache: Cache, folder: Path, *, views: int
    ) -> None:
        """``views`` counts the augmented views besides the mirrored ones; negative: only the view used in serving."""
        self.network = network.float()  # as served, whatever the training precision
        self.experiment = experiment
        self.cache = cache
        self.views = views
        self.folder = folder / FOLDER / self._key()

    def fill(self, series_ids: Sequence[str], progress: Progress) -> None:
        """Compute what is missing; ``progress`` is called with the series done and their total."""
        missing = [series_id for series_id in series_ids if not self._path(series_id).is_file()]
        self.folder.mkdir(parents=True, exist_ok=True)
        inputs = _SeriesInputs(self.cache, missing, self.experiment)
        loader = DataLoader(inputs, batch_size=None, num_workers=self.experiment.run.workers)
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        network = self.network.to(device).eval()
        for done, (series_id, (images, positions)) in enumerate(zip(missing, loader, strict=True), 1):
            embeddings, logits = self._views(network, images, series_id, device)
            with atomic_path(self._path(series_id)) as draft:
                save_tensors({"embeddings": embeddings, "logits": logits, "positions": positions}, draft)
            progress(len(series_ids) - len(missing) + done, len(series_ids))
        network.to("cpu")

    def read(self, series_id: str) -> EmbeddedSeries:
        """Return one series. Raises TrainingError if its file is missing or damaged."""
        path = self._path(series_id)
        try:
            stored = load_tensors(path)
            positions = stored["positions"].tolist()
            known = tuple(None if np.isnan(position) else position for position in positions)
            return EmbeddedSeries(stored["embeddings"], stored["logits"], known)
        except (OSError, KeyError, ValueError, SafetensorError) as error:
            msg = f"{FOLDER}/{path.name} cannot be read ({type(error).__name__}). Delete it and continue with --resume"
            raise TrainingError(msg) from error

    def _views(
        self, network: HemorrhageNetwork, images: Tensor, series_id: str, device: torch.device
    ) -> tuple[Tensor, Tensor]:
        """Embeddings (V, T, D) and logits (V, T, 6) of one series."""
        left, right = _read(network, images, device), _read(network, images.flip(3), device)
        mirror = self.experiment.reading.mirror
        found = [((left[0] + right[0]) / 2, (left[1] + right[1]) / 2) if mirror else left]
        if self.views >= 0:
            found += [left, right] if mirror else [right]
        for view in range(self.views):
            rng = np.random.default_rng([self.experiment.run.seed, view, *series_id.encode()])
            found.append(_read(network, spatially_augmented(images, self.experiment.augment, rng), device))
        embeddings, logits = zip(*found, strict=True)
        return torch.stack(embeddings), torch.stack(logits)

    def _key(self) -> str:
        """Hash of the inputs: equal for equal embeddings."""
        record = self.experiment.to_json()
        kept = {"format": _FORMAT, "views": self.views, "dataset": to_plain(self.cache.dataset)}
        kept |= {"preprocessing": self.experiment.reading_preprocessing.to_json(), "network": record["network"]}
        kept |= {"mirror": self.experiment.reading.mirror}
        kept |= {"augment": record["augment"], "seed": self.experiment.run.seed} if self.views > 0 else {}
        digest = hashlib.sha256(json.dumps(kept, sort_keys=True).encode())
        for tensor in self.network.state_dict().values():
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()[:32]

    def _path(self, series_id: str) -> Path:
        return self.folder / f"{series_id}.safetensors"


def spatially_augmented(images: Tensor, config: AugmentConfig, rng: np.random.Generator) -> Tensor:
    """Flip, rotate, scale and shift all slices of a series alike: (T, C, S, S) in [0, 1], padded with air."""
    angle = np.deg2rad(rng.uniform(-config.rotation, config.rotation))
    zoom = 1 + rng.uniform(-config.scale, config.scale)
    mirror = -1.0 if rng.random() < config.flip else 1.0
    right, down = rng.uniform(-2 * config.shift, 2 * config.shift, size=2)
    cosine, sine = np.cos(angle) / zoom, np.sin(angle) / zoom
    theta = torch.tensor([[mirror * cosine, -sine, right], [mirror * sine, cosine, down]], dtype=torch.float32)
    grid = affine_grid(theta.expand(len(images), 2, 3), list(images.shape), align_corners=False)
    return grid_sample(images, grid, mode="bilinear", align_corners=False)  # air is 0 in every window


def _read(network: HemorrhageNetwork, images: Tensor, device: torch.device) -> tuple[Tensor, Tensor]:
    """Embeddings (T, D) and logits (T, 6), a few slices at a time."""
    with torch.inference_mode():
        outputs = [network(batch.to(device)) for batch in torch.split(images, _BATCH)]
    embeddings = torch.cat([output.embedding.cpu() for output in outputs])
    return embeddings, torch.cat([output.logits.cpu() for output in outputs])


class _SeriesInputs(Dataset[tuple[Tensor, Tensor]]):
    """Model inputs (T, C, S, S) of whole series, exactly as in serving, and positions (T,), NaN if unknown."""

    def __init__(self, cache: Cache, series_ids: Sequence[str], experiment: Experiment) -> None:
        self.cache = cache
        self.series_ids = series_ids
        self.preprocessing = experiment.reading_preprocessing

    def __getitem__(self, place: int) -> tuple[Tensor, Tensor]:
        volume = self.cache.read_series(self.series_ids[place]).volume
        images = np.stack([model_input(volume, index, self.preprocessing) for index in range(len(volume))])
        positions = [np.nan if position is None else position for position in volume.positions_mm]
        return torch.from_numpy(images), torch.tensor(positions, dtype=torch.float64)

    def __len__(self) -> int:
        return len(self.series_ids)
