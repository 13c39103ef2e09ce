"""Reads DICOM files, archives and streams into CT slices in Hounsfield units, in anatomical order."""
