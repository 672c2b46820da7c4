"""A finished run judged by images that none of its folds has seen: which, their proof, the record of the look."""
