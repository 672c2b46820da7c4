"""Backbones and the classifier on top of them."""
