"""Size limits of one input: a decompression bomb is refused before it is inflated or decoded."""

from dataclasses import dataclass, fields


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadLimits:
    """Upper limits on what is read; the caller can raise each of them.

    Attributes:
        file_bytes: size of one file, stream or archive member, as stored.
        inflated_bytes: size of one deflated data set after inflating.
        slice_pixels: rows x columns of one frame.
        pixels: rows x columns x frames of one file.
        elements: data elements and sequence items in one file (a small file can hold millions of empty ones).
        archive_bytes: size of a ZIP file, and of all its members together after inflating.
        members: files in one folder tree, ZIP or DICOMDIR.
    """

    file_bytes: int = 1 << 30
    inflated_bytes: int = 1 << 30
    slice_pixels: int = 1 << 24
    pixels: int = 1 << 28
    elements: int = 1_000_000
    archive_bytes: int = 8 << 30
    members: int = 100_000

    def __post_init__(self) -> None:
        """Reject a limit below 1."""
        for field in fields(self):
            if getattr(self, field.name) < 1:
                msg = f"limit {field.name} must be at least 1, got {getattr(self, field.name)}"
                raise ValueError(msg)
