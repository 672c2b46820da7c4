"""Evaluation of a finished run: out of fold, on a holdout, and compared with other runs."""
