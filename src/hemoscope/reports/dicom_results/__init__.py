"""Results as DICOM objects in the study that was read: a structured report, pictures and a key object selection.

They need the extra ``hospital``. ``build`` composes them; ``source_study`` says what they refer to.
"""
