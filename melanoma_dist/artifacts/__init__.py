"""The run folder and its records: one writer and one reader each."""
