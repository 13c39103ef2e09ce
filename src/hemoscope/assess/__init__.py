"""A model against the truth: labelled DICOM or a prepared dataset in; probabilities, scores and worst errors out."""
