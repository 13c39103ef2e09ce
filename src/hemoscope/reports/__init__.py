"""Findings out: each module turns a ``Report`` into one form, for a person or for a program."""
