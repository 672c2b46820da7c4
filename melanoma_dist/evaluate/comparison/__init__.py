"""Finished runs side by side: whether their difference can be told from chance, and what each cost."""
