"""A federation on one machine, and what it is measured against."""
