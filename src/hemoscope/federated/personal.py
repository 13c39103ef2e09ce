"""Personalisation."""

from hemoscope.federated.own_norm import load_local, save_local

__all__ = ["load_local", "save_local"]
