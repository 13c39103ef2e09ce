"""A study as pandas tables: ``data_frame.py SCANS`` writes ``slices.csv``. Needs the extra ``study``."""

import sys

import hemoscope

prediction = hemoscope.predict(sys.argv[1] if len(sys.argv) > 1 else "examples/sample")
studies = prediction.to_pandas()
print(studies[["triage", "slices", "any", "any_present"]])

slices = prediction.studies[0].to_pandas()
slices.to_csv("slices.csv", index_label="index")
print(slices[["position_mm", "any"]].round(3))
print(f"{len(prediction.rejected)} inputs were refused")
