"""Evaluation: metrics, intervals, operating points, calibration, tables and reports."""
