"""Shared fixtures of the reading tests: one small head, a slice of it as a data set, and its bytes as a file."""

import io
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.pixels import apply_modality_lut
from pydicom.uid import ExplicitVRBigEndian, ImplicitVRLittleEndian

from hemoscope.dicom.read import read_slices
from hemoscope.dicom.slices import SliceHeader
from hemoscope.errors import DicomReadError
from hemoscope.testing.dicom_writer import PixelCoding, ct_dataset
from hemoscope.testing.phantom import Phantom, make_phantom


@pytest.fixture(scope="session")
def head() -> Phantom:
    return make_phantom(seed=3, shape=(9, 64, 64))


@pytest.fixture
def slice_hu(head: Phantom) -> np.ndarray:
    return head.hounsfield[4]


@pytest.fixture
def make_slice(slice_hu: np.ndarray) -> Callable[..., Dataset]:
    """``make_slice(coding=..., Rows=..., KVP=None)``: a CT slice with attributes replaced, or deleted by None."""

    def build(*, coding: PixelCoding | None = None, hounsfield: np.ndarray | None = None, **changes: Any) -> Dataset:
        dataset = ct_dataset(slice_hu if hounsfield is None else hounsfield, coding=coding)
        for name, value in changes.items():
            if value is None:
                delattr(dataset, name)
            else:
                setattr(dataset, name, value)
        return dataset

    return build


@pytest.fixture
def as_bytes() -> Callable[[Dataset], bytes]:
    """The bytes of a data set as a DICOM file in the syntax of its meta information."""

    def write(dataset: Dataset) -> bytes:
        stream, syntax = io.BytesIO(), dataset.file_meta.TransferSyntaxUID
        implicit, little = syntax == ImplicitVRLittleEndian, syntax != ExplicitVRBigEndian
        dataset.save_as(stream, implicit_vr=implicit, little_endian=little, enforce_file_format=True)
        return stream.getvalue()

    return write


@pytest.fixture
def make_header() -> Callable[..., SliceHeader]:
    """``make_header(z, instance_number=..., ...)``: an axial header at a height, or without a place for z=None."""

    def build(z: float | None = 0.0, **changes: Any) -> SliceHeader:
        fields: dict[str, Any] = {
            "source": f"z{z}.dcm",
            "frame": 0,
            "sop_instance_uid": f"1.2.3.{int((z or 0) * 1000) + 500_000}",
            "study_instance_uid": "1.2",
            "series_instance_uid": "1.2.3",
            "rows": 64,
            "columns": 64,
            "pixel_spacing_mm": (0.5, 0.5),
            "position_mm": None if z is None else (0.0, 0.0, z),
            "orientation": (1.0, 0.0, 0.0, 0.0, 1.0, 0.0),
            "slice_thickness_mm": 5.0,
            "kvp": 120.0,
            "convolution_kernel": "H30s",
            "body_part": "HEAD",
        }
        return SliceHeader(**{**fields, **changes})

    return build


@pytest.fixture(scope="session")
def pydicom_hounsfield() -> Callable[[Path | bytes], np.ndarray]:
    """The reference: pydicom's own pixels and Modality LUT."""

    def reference(source: Path | bytes) -> np.ndarray:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            dataset = pydicom.dcmread(io.BytesIO(source) if isinstance(source, bytes) else source)
            return apply_modality_lut(dataset.pixel_array, dataset)

    return reference


@pytest.fixture(scope="session")
def refused() -> Callable[..., DicomReadError]:
    """``refused(data, code, match, **options)``: the error that reading raises, which must be this one."""

    def check(data: bytes | Path, code: str, match: str, **options: object) -> DicomReadError:
        with pytest.raises(DicomReadError, match=match) as caught:
            read_slices(data, source="x.dcm", **options)
        assert caught.value.code == code
        assert str(caught.value).startswith("x.dcm: ")
        return caught.value

    return check
