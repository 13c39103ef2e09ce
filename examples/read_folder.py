"""Read every study of a folder; say what was found and what was refused: ``read_folder.py SCANS``."""

import sys

import hemoscope

folder = sys.argv[1] if len(sys.argv) > 1 else "examples/sample"
model = hemoscope.load_model()
archive = hemoscope.open_archive(folder)
refused = list(archive.rejected)

for outcome in model.studies(archive):  # one study at a time is in memory
    refused += outcome.rejected
    if outcome.reading is None:
        continue
    findings = outcome.reading.findings
    print(f"{findings.study_instance_uid}: {findings.triage.value}")
    for finding in findings.findings:
        state = "suspected" if finding.present else "below threshold"
        print(f"  {finding.label.display:18} {finding.probability:.2f} (threshold {finding.threshold:.2f})  {state}")

for one in refused:
    print(f"refused: {one.source}: {one.message}")
