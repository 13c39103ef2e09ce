"""Phantoms of head CT and writers of DICOM files, for tests and documentation."""
