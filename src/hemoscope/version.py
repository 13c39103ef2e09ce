"""The version of the package and the disclaimer that stands wherever results are shown."""

__version__ = "0.1.0"

DISCLAIMER = "Research use only. Not a medical device: not for diagnosis or treatment decisions."
