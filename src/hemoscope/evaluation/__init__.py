"""Numbers in, numbers out: metrics, intervals, operating points, calibration fits, tables and the report."""
