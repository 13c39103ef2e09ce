"""NIfTI in, NIfTI out: a head CT, and the heat map that lies over it: ``read_nifti.py HEAD.nii.gz``.

Without an argument the sample becomes a NIfTI file first. Needs the extra ``nifti``.
"""

import sys
from pathlib import Path

import hemoscope

output = Path("nifti")
output.mkdir(exist_ok=True)
model = hemoscope.load_model()

if len(sys.argv) > 1:
    path = Path(sys.argv[1])
else:
    path = output / "head.nii.gz"
    hemoscope.predict("examples/sample", model=model).studies[0].to_nifti(path)

volume = hemoscope.read_nifti(path)
print(f"{volume.hounsfield.shape} slices, rows, columns; {volume.spacing_mm} mm apart")
print(volume.affine.round(2))

reading = model.read(volume, maps=True)
reading.to_nifti(output / "any.nii.gz", heat_map="any")
print(f"any hemorrhage: {reading.findings.probabilities['any']:.2f}; the heat map is nifti/any.nii.gz")
