"""Lay a heat map over the slice that shows most: ``heat_map.py SCANS LABEL`` writes ``heat_map.png``."""

import sys

import numpy as np
from PIL import Image

import hemoscope

path = sys.argv[1] if len(sys.argv) > 1 else "examples/sample"
label = hemoscope.Hemorrhage(sys.argv[2] if len(sys.argv) > 2 else "any")

reading = hemoscope.predict(path, maps=True).studies[0]
scores = reading.probabilities.slice_probabilities[:, hemoscope.LABELS.index(label)]
index = int(np.argmax(scores))

hounsfield = reading.volume.hounsfield[index].astype(np.float32)
brain = np.clip(hounsfield / 80.0, 0.0, 1.0)  # window of 0 to 80 HU
heat = reading.heat_map(label, index)  # local probabilities, of the slice's own size
red = np.stack([brain + heat * (1.0 - brain), brain * (1.0 - 0.7 * heat), brain * (1.0 - 0.7 * heat)], axis=-1)
Image.fromarray((red * 255).round().astype(np.uint8)).save("heat_map.png")
print(f"{label.display}: {scores[index]:.2f} on slice {index + 1} of {len(reading.volume)}")
