"""Images, archives of images and NIfTI files as targets of fuzzing."""

import io
import random
import tarfile
import zipfile
from pathlib import Path
from typing import Any

from hemoscope.errors import HemoscopeError

from ..dicom import fuzzing
from .target import Target

_waiting: list[Any] = []  # headers of slices that are assembled together


def _dicom_seeds(folder: Path) -> list[bytes]:
    from ..dicom.fuzz_seeds import write_fuzz_seeds

    write_fuzz_seeds(folder)
    return [path.read_bytes() for path in sorted(folder.glob("*.dcm"))]


def _dicom(data: bytes, _folder: Path) -> None:
    """Read, de-identify, and assemble with the slices before."""
    from hemoscope.dicom.read import read_slices

    slices = read_slices(data, source="mutated")
    assert fuzzing.deidentified_as(data, bytes(range(16)), slices) != "other", "de-identified pixels differ"
    _waiting.extend(one.header for one in slices)
    if len(_waiting) >= fuzzing.STUDY_SLICES:
        headers = list(_waiting)
        _waiting.clear()
        fuzzing.assembled(headers)


def _mutate_dicom(data: bytes, random_: random.Random) -> bytes:
    return fuzzing.mutate(data, random_.getrandbits(62))


def zip_of(members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return stream.getvalue()


def _tar(members: dict[str, bytes], mode: str) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode=mode) as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return stream.getvalue()


def _archive_seeds(folder: Path) -> list[bytes]:
    import gzip

    one = _dicom_seeds(folder)[0]
    members = {"a/IM1.dcm": one, "a/IM2": b"text", "DICOMDIR": b"x" * 200}
    inner = zip_of(members)
    return [
        inner,
        zip_of(members, zipfile.ZIP_STORED),
        zip_of({"inner.zip": inner, "inner.tar": _tar(members, "w"), "x.gz": gzip.compress(one)}),
        _tar(members, "w"),
        _tar({"deep.zip": zip_of({"inner.zip": inner})}, "w:gz"),
        gzip.compress(one),
    ]


def _archive(data: bytes, folder: Path) -> None:
    from hemoscope.dicom.read_limits import ReadLimits
    from hemoscope.dicom.sources import find_sources

    path = folder / "input.zip"
    path.write_bytes(data)
    limits = ReadLimits(file_bytes=1 << 24, archive_bytes=1 << 26, members=1000)
    found = 0
    for place in (path, folder):  # by its content, and by its name
        sources, rejected = find_sources([place], limits=limits)
        found += len(sources) + len(rejected)
        for source in sources:
            try:
                source.load(limits)
            except HemoscopeError:
                continue
    assert found, "neither read nor refused"


def _dicomdir_seeds(_folder: Path) -> list[bytes]:
    from pydicom import Dataset

    stream = io.BytesIO()
    dataset = Dataset()
    dataset.FileSetID = "X"
    records = []
    for parts in (["A", "IM1"], "IM2", ["ZZ", "X"], ["B"]):
        record = Dataset()
        record.DirectoryRecordType, record.ReferencedFileID = "IMAGE", parts
        records.append(record)
    dataset.DirectoryRecordSequence = records
    dataset.file_meta = _dicomdir_meta()
    dataset.save_as(stream, enforce_file_format=True)
    return [stream.getvalue(), stream.getvalue().replace(b"ZZ", b"..")]


def _dicomdir_meta() -> Any:
    from pydicom import uid
    from pydicom.dataset import FileMetaDataset

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = uid.MediaStorageDirectoryStorage, "1.2.3"
    meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    return meta


def _dicomdir(data: bytes, folder: Path) -> None:
    from hemoscope.dicom.archive import open_archive

    (folder / "A").mkdir(exist_ok=True)
    (folder / "A" / "IM1").write_bytes(b"no image")
    (folder / "DICOMDIR").write_bytes(data)
    open_archive([folder / "DICOMDIR"])


def _nifti_seeds(folder: Path) -> list[bytes]:
    from hemoscope.nifti import write_nifti
    from hemoscope.testing.phantom import make_phantom

    head = make_phantom(seed=5, shape=(3, 32, 32))
    for name in ("a.nii", "a.nii.gz"):
        write_nifti(folder / name, head.hounsfield, head.volume.affine)
    return [(folder / name).read_bytes() for name in ("a.nii", "a.nii", "a.nii.gz")]


def _nifti(data: bytes, folder: Path) -> None:
    from hemoscope.nifti import read_nifti

    path = folder / ("input.nii.gz" if data[:2] == b"\x1f\x8b" else "input.nii")
    path.write_bytes(data)
    read_nifti(path, max_voxels=1 << 20)


TARGETS = {
    "DICOM files": Target(seeds=_dicom_seeds, run=_dicom, mutate=_mutate_dicom, weight=4, guided=False),
    "archives": Target(seeds=_archive_seeds, run=_archive, weight=2),
    "DICOMDIR": Target(seeds=_dicomdir_seeds, run=_dicomdir),
    "NIfTI files": Target(seeds=_nifti_seeds, run=_nifti),
}
