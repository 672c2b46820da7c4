"""Metrics, intervals, calibration and operating points. Functions take arrays and return numbers."""
