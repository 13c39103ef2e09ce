"""The errors that Hemoscope raises. Each message says what is wrong, where, and what to do.

Library code raises these; only ``cli`` and ``web`` turn them into exit codes and statuses::

    HemoscopeError
    |-- DicomReadError     one input is refused; carries source, code, reason and remedy
    |-- DecoderStartError  no decoder process can be started: the machine is at fault, and no input
    |-- SeriesError        inputs were read, but no series can be analysed
    |-- NiftiError         a NIfTI file is not a head CT that can be read
    |-- GeometryError      no single affine places the slices of a volume
    |-- DicomResultError   no results in DICOM can be made of a study
    |-- BundleError        a model bundle is damaged, invalid or of another version
    |-- DataError          a dataset, label file or cache is invalid
    |-- ConfigError        a setting or experiment file is unknown or out of range
    |-- TrainingError      training cannot start or continue
    |-- FederationError    a federation's round, update, site or key is invalid
    |-- StoreError         the store refuses a request; carries code, reason and remedy
    `-- MissingExtraError  an optional dependency is not installed
"""

from typing import Any

# What installs each extra in a clone, with the pins.
_IN_A_CLONE = {
    "nifti": "python -m pip install -e '.[nifti]' -c constraints/nifti.txt",
    "hospital": "python -m pip install -e '.[hospital]' -c constraints/hospital.txt",
    "study": "python -m pip install -e '.[study]' -c constraints/study.txt",
    "train": "make setup-train",
    "quantize": "python -m pip install -e '.[quantize]' -c constraints/quantize.txt",
    "gpu": "python -m pip install -e '.[gpu]' -c constraints/gpu.txt",
    "dev": "make setup-dev",
    "federated": "make setup-federated, and then .venv-federated/bin/hemoscope",
}


class HemoscopeError(Exception):
    """Base class of all errors; the message includes the remedy."""

    def __reduce__(self) -> tuple[Any, ...]:
        """Let an error of a worker process be raised in this one, whatever its class is made from."""
        return _raised_elsewhere, (type(self), self.args, self.__dict__)


def _raised_elsewhere(kind: type[HemoscopeError], args: tuple[Any, ...], values: dict[str, Any]) -> HemoscopeError:
    error = kind.__new__(kind)
    error.args = args
    error.__dict__.update(values)
    return error


class DicomReadError(HemoscopeError):
    """One input that cannot be read as a CT slice.

    Args:
        source: the input's name, relative to the path that the user gave.
        code: a stable identifier for programs, such as ``not_dicom`` or ``truncated_pixel_data``.
        reason: what is wrong, with the value found.
        remedy: what the user can do.
    """

    def __init__(self, *, source: str, code: str, reason: str, remedy: str) -> None:
        """Compose the message as ``source: reason. remedy``."""
        super().__init__(f"{source}: {reason}. {remedy}")
        self.source = source
        self.code = code
        self.reason = reason
        self.remedy = remedy


class DecoderStartError(HemoscopeError):
    """No decoder process can be started: the machine lacks memory, processes or file descriptors, which may pass."""


class SeriesError(HemoscopeError):
    """Inputs were read, but no series can be analysed."""


class NiftiError(HemoscopeError):
    """A NIfTI file is not a head CT that can be read; the message names the file, what is wrong and what to do."""


class GeometryError(HemoscopeError):
    """No single affine places the slices of a volume: positions are unknown, or the slices are unevenly spaced."""


class DicomResultError(HemoscopeError):
    """A study was read, but no results in DICOM can refer to its images; the message says why, and what to do."""


class BundleError(HemoscopeError):
    """A model bundle is damaged, invalid or of another version."""


class DataError(HemoscopeError):
    """A dataset, label file or cache is invalid."""


class ConfigError(HemoscopeError):
    """A setting or experiment file is unknown or out of range."""


class TrainingError(HemoscopeError):
    """Training cannot start or continue."""


class FederationError(HemoscopeError):
    """A federation's round, update, site or key is invalid."""


class StoreError(HemoscopeError):
    """The store refuses a request: an upload, a missing study, a database.

    Args:
        code: a stable identifier for programs, such as ``no_such_study`` or ``file_too_large``.
        reason: what is wrong, with the value found.
        remedy: what the user can do.
    """

    def __init__(self, *, code: str, reason: str, remedy: str) -> None:
        """Compose the message as ``reason. remedy``."""
        super().__init__(f"{reason}. {remedy}")
        self.code = code
        self.reason = reason
        self.remedy = remedy


class MissingExtraError(HemoscopeError):
    """An optional part of the installation is missing; the message gives the line that installs it.

    The index need not know hemoscope: pip takes the installed one, and fetches only what its extra requires.
    """

    def __init__(self, *, package: str, extra: str) -> None:
        """Name the missing package and the extra that brings it."""
        wheel = f"into the environment that has hemoscope: python -m pip install 'hemoscope[{extra}]'"
        super().__init__(
            f"{package} is not installed. Install it, in a clone: {_IN_A_CLONE[extra]}; from a wheel, {wheel}"
        )
