"""Hemoscope finds suspected intracranial hemorrhage in head CT. Research software, not a medical device."""

from hemoscope.version import __version__ as __version__
