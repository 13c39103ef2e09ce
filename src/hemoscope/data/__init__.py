"""Datasets, caches and splits: NumPy and files, no PyTorch."""
