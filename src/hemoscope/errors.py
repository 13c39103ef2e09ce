"""The errors that Hemoscope raises: what is wrong, where, and what to do about it.

Library code raises these; only ``cli`` and ``web`` turn them into exit codes and statuses::

    HemoscopeError
    |-- DicomReadError     one input is refused; carries source, code, reason and cure
    |-- SeriesError        inputs were read, but no series in them can be analysed
    |-- BundleError        a model bundle is damaged, foreign or of another version
    |-- DataError          a dataset, label file or cache is not what it claims to be
    |-- ConfigError        a setting or experiment file is unknown or out of range
    |-- TrainingError      training cannot start or go on
    |-- FederationError    a federation's round, update, site or key is not what it must be
    |-- StoreError         the reading room refuses a request; carries code, reason and remedy
    `-- MissingExtraError  an optional part of the installation is absent
"""

_APART = frozenset({"federated"})  # extras with an environment of their own in a clone


class HemoscopeError(Exception):
    """Anything that Hemoscope refuses, with the cure in the message."""


class DicomReadError(HemoscopeError):
    """One input that cannot be read as a CT slice.

    Args:
        source: the input as the user named it, relative to the path they gave.
        code: a stable word for programs, such as ``not_dicom`` or ``truncated_pixel_data``.
        reason: what is wrong, with the value found.
        cure: what the user can do.
    """

    def __init__(self, *, source: str, code: str, reason: str, cure: str) -> None:
        """Compose the message as ``source: reason. cure``."""
        super().__init__(f"{source}: {reason}. {cure}")
        self.source = source
        self.code = code
        self.reason = reason
        self.cure = cure


class SeriesError(HemoscopeError):
    """Inputs were read, but no series in them can be analysed."""


class BundleError(HemoscopeError):
    """A model bundle is damaged, foreign or of another version."""


class DataError(HemoscopeError):
    """A dataset, label file or cache is not what it claims to be."""


class ConfigError(HemoscopeError):
    """A setting or experiment file is unknown or out of range."""


class TrainingError(HemoscopeError):
    """Training cannot start or go on."""


class FederationError(HemoscopeError):
    """A federation's round, update, site or key is not what it must be."""


class StoreError(HemoscopeError):
    """Something that the reading room's store refuses: an upload, a study that is not there, a database.

    Args:
        code: a stable word for programs, such as ``no_such_study`` or ``file_too_large``.
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
    """An optional part of the installation is absent; the message gives the line that installs it."""

    def __init__(self, *, package: str, extra: str) -> None:
        """Name the missing package and the extra that brings it."""
        clone = f", or in a clone: make setup-{extra}, and then .venv-{extra}/bin/hemoscope" if extra in _APART else ""
        super().__init__(f"{package} is not installed. Install it with: pip install 'hemoscope[{extra}]'{clone}")
