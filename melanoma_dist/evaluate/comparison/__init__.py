"""Compare finished runs: whether they differ by more than chance, and what each cost."""
