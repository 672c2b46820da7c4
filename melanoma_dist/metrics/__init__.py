"""The numbers of an evaluation: figures, intervals, calibration, operating points. Arrays in, numbers out."""
