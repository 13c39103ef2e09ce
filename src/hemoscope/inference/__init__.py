"""Inference, from a volume to findings: preprocessing, model bundle, probabilities and operating points."""
