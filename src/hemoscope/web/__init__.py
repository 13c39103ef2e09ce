"""The reading room: a web application and REST API over the store. Nothing here reads DICOM or runs a model."""
