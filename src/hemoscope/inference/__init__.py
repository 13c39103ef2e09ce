"""From a volume to findings: preprocessing, the model bundle, probabilities, operating points."""
