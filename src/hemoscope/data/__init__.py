"""Datasets, caches and phantoms: NumPy and files, no PyTorch."""
