"""A finished run judged: out of fold, on unseen images, beside other runs."""
