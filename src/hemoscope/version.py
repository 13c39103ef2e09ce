"""The version of the package, and the disclaimer that is shown with every result."""

__version__ = "0.1.0"

DISCLAIMER = "Research use only. Not a medical device: not for diagnosis or treatment decisions."
