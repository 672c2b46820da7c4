"""The sections of ``gpu.py``: what only a GPU can show."""

from on_gpu import dali as dali  # first: it lets the package be imported where DALI is not
