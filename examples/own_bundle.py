"""Read with a model of your own: ``own_bundle.py BUNDLE SCANS``; ``hemoscope export`` writes a BUNDLE."""

import sys

import hemoscope

try:
    model = hemoscope.load_model(sys.argv[1] if len(sys.argv) > 1 else None)
except hemoscope.BundleError as error:
    sys.exit(f"not a bundle: {error}")

card = model.bundle.card
print(f"{card.name} {card.version}, sha256 {model.bundle.sha256[:12]}")
print("established:", ", ".join(label for label, supported in card.established.items() if supported))
for reading in model.predict(hemoscope.open_archive(sys.argv[2] if len(sys.argv) > 2 else "examples/sample")).studies:
    print(f"any hemorrhage: {reading.findings.probabilities['any']:.3f}")
