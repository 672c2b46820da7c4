"""Evaluation of a finished run on a holdout: image selection, contamination check, access log and metrics."""
