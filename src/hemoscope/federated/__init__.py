"""Federated training on Flower: hospitals train together, images stay home."""
