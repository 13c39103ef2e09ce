"""Headers of numpy's files are read as numpy writes them, and whatever else somebody sends is no header."""

import io
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from hemoscope.federated.exchange.array_header import read_array_header

PLAIN = "{'descr': '<f4', 'fortran_order': False, 'shape': %s, }"


def stored(array: Any) -> bytes:
    """An array in numpy's file format."""
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def with_header(text: str, body: bytes = b"") -> bytes:
    """A file whose header says what it likes."""
    header = text.encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + body


@given(
    hnp.arrays(st.sampled_from(["<f4", "<f8", "<i8", "|u1"]), hnp.array_shapes(min_dims=0, min_side=0)), st.booleans()
)
def test_numpys_own_headers_say_what_numpy_reads(array: Any, fortran: bool) -> None:
    whole = stored(np.asfortranarray(array) if fortran else array)
    stream = io.BytesIO(whole)
    np.lib.format.read_magic(stream)
    shape, order, dtype = np.lib.format.read_array_header_1_0(stream)
    found = read_array_header(whole)
    assert found is not None
    assert (found.shape, found.fortran, np.dtype(found.descr), found.start) == (
        shape,
        order,
        dtype,
        stream.tell(),
    )


@pytest.mark.parametrize(
    "hostile",
    [
        with_header("{'descr': '<f4', 'fortran_order': False, 'shape': ("),  # TokenError of numpy's reader
        with_header("-" * 9000 + "1"),  # MemoryError
        with_header("{[]: 1}"),  # TypeError
        with_header(PLAIN % "(-2, -2)", bytes(16)),  # as many bytes as it claims
        with_header(PLAIN % "(True, 4)", bytes(16)),
        with_header(PLAIN % f"(0, {10**17})"),
        with_header(PLAIN % f"({'1, ' * 99})", bytes(4)),
        with_header("{'descr': [('a', '<f4', (9,))], 'fortran_order': False, 'shape': (), }"),
        with_header(PLAIN % "(4,)")[:20],
        b"\x93NUMPY\x02\x00" + stored(np.zeros(4, np.float32))[8:],
        b"",
    ],
)
def test_a_header_that_numpy_would_not_write_is_none(hostile: bytes) -> None:
    assert read_array_header(hostile) is None


@given(st.binary(max_size=200))
def test_any_bytes_are_a_header_or_none(tail: bytes) -> None:
    found = read_array_header(b"\x93NUMPY\x01\x00" + tail)
    assert found is None or found.start <= len(tail) + 8
