"""The DICOM network node: images come in over C-STORE and stand in the worklist. It needs the extra ``hospital``."""
