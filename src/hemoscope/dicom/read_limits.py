"""Limits of what reading may cost: a decompression bomb is refused before it is inflated or decoded."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, fields

from hemoscope.errors import ConfigError

_POWERS = {"": 0, "K": 1, "M": 2, "G": 3}
_LIMIT = re.compile(r"(\w+)=([0-9]+)([KMG]?)", re.ASCII | re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadLimits:
    """Upper limits on what is read; the caller can raise each of them.

    Attributes:
        file_bytes: size of one file, stream or archive member, also after inflating a file compressed with gzip.
        inflated_bytes: size of one deflated data set after inflating.
        slice_pixels: rows x columns of one frame.
        pixels: rows x columns x frames of one file.
        elements: data elements in one file (a small file can hold millions of empty ones); a sequence item counts as
            four, since its object is as large.
        file_seconds: processor time to parse one file, without decoding its pixels.
        archive_bytes: size of a ZIP or TAR file, and of all files in it together after inflating, also in archives in
            it; and, apart from that, what deflated data sets and files compressed with gzip inflate to together.
        archive_elements: data elements in all files that are opened together, counted each time that a file is read.
            The first 400 of each file are free.
        archive_seconds: processor time to parse all files that are opened together. The first 0.01 s of each are free.
        members: files in one folder tree, archive or DICOMDIR.
        archive_depth: levels of archives in one another: 1 reads no archive in an archive.
    """

    file_bytes: int = 1 << 30
    inflated_bytes: int = 1 << 30
    slice_pixels: int = 1 << 24
    pixels: int = 1 << 28
    elements: int = 1_000_000
    file_seconds: int = 20
    archive_bytes: int = 8 << 30
    archive_elements: int = 10_000_000
    archive_seconds: int = 120
    members: int = 100_000
    archive_depth: int = 3

    def __post_init__(self) -> None:
        """Reject a limit below 1."""
        for field in fields(self):
            if getattr(self, field.name) < 1:
                msg = f"limit {field.name} must be at least 1, got {getattr(self, field.name)}"
                raise ValueError(msg)


def limits_from_options(options: Sequence[str]) -> ReadLimits:
    """Return the default limits, changed by options such as ``archive_bytes=16G``; of two, the last counts.

    The suffixes k, M and G multiply by powers of 1024 for limits in bytes, and by powers of 1000 for others.

    Raises:
        ConfigError: an option names no limit, or its value is not a whole number of at least 1.

    Examples:
        >>> limits_from_options(["file_bytes=2G", "members=200k"]).members
        200000
    """
    names = {field.name for field in fields(ReadLimits)}
    values: dict[str, int] = {}
    for option in options:
        match = _LIMIT.fullmatch(option.strip())
        if match is None or match[1] not in names or not int(match[2]):
            msg = (
                f"--limit {option}: not a limit. Give NAME=VALUE, such as archive_bytes=16G; the value is a whole "
                f"number of at least 1, with k, M or G if you like; names are: {', '.join(sorted(names))}"
            )
            raise ConfigError(msg)
        base = 1024 if match[1].endswith("_bytes") else 1000
        values[match[1]] = int(match[2]) * base ** _POWERS[match[3].upper()]
    return ReadLimits(**values)
