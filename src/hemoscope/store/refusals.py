"""Requests that the store refuses: the stable codes, and what the user can do about each."""

from hemoscope.errors import StoreError

REMEDIES: dict[str, str] = {
    "no_such_study": "Reload the worklist; the study may have been deleted",
    "no_such_slice": "Give an index from 0 to the number of slices less one",
    "no_such_series": "Reload the page; a site keeps other series if it sets --keep-series",
    "no_such_label": "Give one of the six labels",
    "no_pixels": "Wait until the study is being scored; a study that could not be read has no pixels",
    "no_maps": "Wait until the study is done",
    "damaged_pixels": "Upload the study again, and check the disk of the storage folder",
    "no_such_destination": "Give the name of a [[destination]] in the file of --node",
    "no_results": "Send the study to Hemoscope again once there is a [[destination]]: it is read again",
    "no_findings": "Wait until the study is done",
    "empty_upload": "Give at least one file that is not empty",
    "file_too_large": "Upload smaller files, or raise --upload-mib",
    "too_many_files": "Upload fewer files at once, or raise --upload-files",
    "upload_too_large": "Upload one study at a time, or raise --upload-mib",
    "upload_abandoned": "Upload again, and wait for the answer",
    "storage_full": "Free space where the studies are stored, or set a retention period",
    "bad_feedback": "Give slices of this study, and at most 2000 characters of note",
    "bad_measurement": "Measure within the slice, lengths and areas where the pixel spacing is known",
    "no_such_measurement": "Reload the page; the measurement may have been deleted",
    "bad_initials": "Give one to four letters or digits",
    "bad_setting": "Give a value that JSON can hold, under a short name",
    "database_unreachable": "Check that the database runs and that its URL is right",
    "database_full": "Free space where the database keeps its files",
    "storage_unusable": "Check that the storage folder's disk is mounted, and that this user may write to it",
}

# Faults of the site, not of a study: they pass, and what was asked for can be tried again.
PASSING = frozenset({"database_unreachable", "database_full", "storage_unusable", "storage_full"})


def refusal(code: str, reason: str) -> StoreError:
    """The error for one refusal; an unknown ``code`` is a KeyError, so that every code has a remedy."""
    return StoreError(code=code, reason=reason, remedy=REMEDIES[code])
