"""Keeps the files of a small archive, checked, from indexing until they are decoded: they are read and parsed once.

The room is small. A large archive is decoded long after it was indexed, and its bytes do not fit into memory: of one
study that is larger than the room, the first files are kept; of several studies, none.
"""

from collections.abc import Iterable

from hemoscope import memory
from hemoscope.dicom.containers import Source
from hemoscope.dicom.read import OpenedImage

__all__ = ["KeptImages", "file_stamp"]

# One thin series, compressed, or a hundred slices as they are: freed one by one as its volume, which is larger, fills.
_MOST_BYTES = 48 << 20
_RETURNED_EVERY = 32
_Stamp = tuple[int, ...]


class KeptImages:
    """Files of an archive, up to a number of bytes; each can be taken once."""

    def __init__(self, most_bytes: int = _MOST_BYTES, *, return_pages: bool = True) -> None:
        """Begin without files; ``return_pages`` gives the memory of those taken back to the system."""
        self._left = most_bytes
        self._returns_pages = return_pages
        self._images: dict[str, tuple[_Stamp, OpenedImage]] = {}

    def keep(
        self,
        source: Source,
        before: _Stamp | None,
        image: OpenedImage | None,
        size: int,
        *,
        several_studies: bool = False,
    ) -> bool:
        """Keep a file of ``size`` bytes if there is room; ``before`` is its stamp from before it was read.

        If there is no room and the files are of several studies, all are freed, and none is kept from then on.
        """
        if image is None or before is None:
            return False
        if size > self._left:
            if several_studies and self._images:
                self._free_all()
            return False
        self._left -= size
        self._images[source.name] = (before, image)
        return True

    def take(self, source: Source) -> OpenedImage | None:
        """Return a file once; None if it was not kept, or may have been written to since."""
        before, image = self._images.pop(source.name, (None, None))
        if image is not None and self._returns_pages and len(self._images) % _RETURNED_EVERY == 0:
            memory.return_pages()
        return image if image is not None and before == file_stamp(source) else None

    def _free_all(self) -> None:
        self._left = 0
        self._images.clear()
        if self._returns_pages:
            memory.return_pages()

    def forget(self, sources: Iterable[str]) -> None:
        """Free files, by their names, that nobody will take."""
        for source in sources:
            self._images.pop(source, None)


def file_stamp(source: Source) -> _Stamp | None:
    """Return ``source.stamp()``, or None for a file that is gone."""
    try:
        return source.stamp()
    except OSError:
        return None
