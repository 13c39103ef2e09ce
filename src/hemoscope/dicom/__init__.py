"""DICOM in: files, archives and streams become CT slices in Hounsfield units, in anatomical order."""
