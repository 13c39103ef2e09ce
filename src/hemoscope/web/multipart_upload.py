"""Streams a multipart body into files: never whole in memory, and without the client's file names.

The parser reads part headers only to find the field ``files``; the store generates its own names.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

from anyio import CancelScope, CapacityLimiter, to_thread
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect
from starlette.types import Receive

from hemoscope.store.uploads import Upload, UploadedFile
from hemoscope.web.problems import Problem

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

FIELD = b"files"
FORM_BYTES = 4 << 20  # what part headers and boundaries may add to the files' own bytes
_PIECE = 256 << 10  # what is still written after the client has gone
_REMEDY = 'Send multipart/form-data with one part named "files" for each file; a ZIP is one file'


def boundary_of(content_type: str) -> bytes:
    """Return the boundary of a multipart body.

    Raises:
        Problem: 415 for another content type, 400 for one without a boundary.

    """
    kind, parameters = parse_options_header(content_type)
    if kind != b"multipart/form-data":
        raise Problem(415, code="not_multipart", detail="The body is not multipart/form-data.", remedy=_REMEDY)
    boundary = parameters.get(b"boundary", b"")
    if not 1 <= len(boundary) <= 70:  # RFC 2046, 5.1.1
        raise _malformed("it has no usable boundary")
    return boundary


class MultipartFiles:
    """Writes the parts of one body into an upload as they arrive.

    Args:
        upload: the open upload; its limits are checked for every piece.
        boundary: of the body.
    """

    def __init__(self, upload: Upload, boundary: bytes) -> None:
        """Start before the first byte."""
        self._upload = upload
        self._file: UploadedFile | None = None
        self._open = ExitStack()
        self._header = (bytearray(), bytearray())
        self._field: bytes | None = None
        self._finished = False
        callbacks: MultipartCallbacks = {
            "on_part_begin": self._begin_part,
            "on_header_field": partial(self._header_part, 0),
            "on_header_value": partial(self._header_part, 1),
            "on_header_end": self._end_header,
            "on_headers_finished": self._open_file,
            "on_part_data": self._write,
            "on_part_end": self._end_part,
            "on_end": self._end,
        }
        self._parser = MultipartParser(boundary, callbacks)

    def feed(self, piece: bytes) -> None:
        """Take the next bytes of the body.

        Raises:
            Problem: 400, the body is not valid multipart.
            StoreError: a limit of the store.

        """
        try:
            self._parser.write(piece)
        except FormParserError as error:
            raise _malformed("it breaks the format") from error

    def finish(self) -> None:
        """Check that the final boundary arrived. Raises Problem 400 for a truncated body."""
        if not self._finished:
            raise _malformed("it ends too early")

    def abandon(self) -> None:
        """Close the file that is being written, if any."""
        self._file = None
        self._open.close()

    def _begin_part(self) -> None:
        self._field = None

    def _header_part(self, which: int, data: bytes, start: int, end: int) -> None:
        self._header[which].extend(data[start:end])

    def _end_header(self) -> None:
        name, value = (bytes(part) for part in self._header)
        for part in self._header:
            part.clear()
        if name.lower() == b"content-disposition":
            self._field = parse_options_header(value)[1].get(b"name")

    def _open_file(self) -> None:
        if self._field != FIELD:
            raise Problem(400, code="unknown_field", detail='A part of the body is not named "files".', remedy=_REMEDY)
        self._file = self._open.enter_context(self._upload.new_file())

    def _write(self, data: bytes, start: int, end: int) -> None:
        assert self._file is not None
        self._file.write(data[start:end])

    def _end_part(self) -> None:
        self.abandon()

    def _end(self) -> None:
        self._finished = True


@asynccontextmanager
async def begun_in_thread(upload: Upload, *, limiter: CapacityLimiter) -> AsyncIterator[Upload]:
    """``with upload``, but threads of ``limiter`` make its folder and remove it, even if the request is cancelled.

    A disk that hangs, or thousands of files to remove, would else hold up every other client.
    """
    entered = ExitStack()
    try:
        await _finished(partial(entered.enter_context, upload), limiter)
        yield upload
    finally:
        await _finished(entered.close, limiter)


async def _finished(work: Callable[[], object], limiter: CapacityLimiter) -> None:
    """Run in a thread. A request that is cancelled meanwhile waits for its end first."""
    working = asyncio.create_task(to_thread.run_sync(work, limiter=limiter))
    with CancelScope(shield=True):
        try:
            await asyncio.shield(working)
        except asyncio.CancelledError:
            await asyncio.wait([working])
            working.exception()
            raise


async def receive_files(
    upload: Upload, boundary: bytes, body: AsyncIterator[bytes], *, limiter: CapacityLimiter
) -> None:
    """Receive a whole body into ``upload``; threads of ``limiter`` parse and write a piece while the next arrives.

    Raises:
        Problem, StoreError: as :class:`MultipartFiles` does; 400 if the client closed the connection.

    """
    files, pending = MultipartFiles(upload, boundary), bytearray()
    writer = _Writer(files.feed, limiter)
    left = upload.limits.upload_bytes + FORM_BYTES
    try:
        async for chunk in body:
            left -= len(chunk)
            if left < 0:  # the parser passes over any number of bytes before the first and after the last boundary
                raise upload_too_large(upload.limits.upload_bytes)
            pending += chunk
            if len(pending) >= _PIECE:
                await writer.write(bytes(pending))
                pending.clear()
        await writer.write(bytes(pending))
        await writer.finish()
        files.finish()
    except ClientDisconnect as error:
        upload.abandoned.set()
        raise Problem(
            400, code="upload_abandoned", detail="The client closed the connection.", remedy="Upload again"
        ) from error
    finally:
        await writer.settle()
        files.abandon()


class _Writer:
    """Writes pieces one after the other in threads; ``write`` returns while its piece is still being written."""

    def __init__(self, feed: Callable[[bytes], None], limiter: CapacityLimiter) -> None:
        self._feed = feed
        self._limiter = limiter
        self._writing: asyncio.Task[None] | None = None

    async def write(self, piece: bytes) -> None:
        """Begin to write a piece, once the one before is written. Raises what that one raised."""
        await self.finish()
        self._writing = asyncio.create_task(to_thread.run_sync(self._feed, piece, limiter=self._limiter))

    async def finish(self) -> None:
        """Wait until all is written."""
        if self._writing is not None:
            await self._writing
            self._writing = None

    async def settle(self) -> None:
        """Wait until no thread writes any more, whatever it raises: an error is on its way already."""
        if self._writing is not None:
            await asyncio.wait([self._writing])
            self._writing.exception()


@asynccontextmanager
async def abandoned_with_client(upload: Upload, receive: Receive) -> AsyncIterator[None]:
    """Mark the upload as abandoned if its client, whose body is complete, closes the connection within the block."""

    async def watch() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        upload.abandoned.set()

    watching = asyncio.create_task(watch())
    try:
        yield
    finally:
        watching.cancel()
        await asyncio.wait([watching])


def upload_too_large(limit: int) -> Problem:
    """413 for a body that is longer than files of ``limit`` bytes in a form."""
    return Problem(
        413,
        code="upload_too_large",
        detail=f"The upload is larger than the {limit >> 20} MiB that this server accepts.",
        remedy="Upload one study at a time, or ask an administrator to raise --upload-mib",
    )


def _malformed(what: str) -> Problem:
    return Problem(400, code="bad_multipart", detail=f"The multipart body cannot be read: {what}.", remedy=_REMEDY)
