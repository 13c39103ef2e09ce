"""Memory that was freed, given back to the system."""

import ctypes

__all__ = ["return_pages"]

_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)


def return_pages() -> None:
    """Give freed memory back to the system: between blocks in use, the C library keeps it (malloc_trim(3), glibc)."""
    if _trim is not None:
        _trim(0)
