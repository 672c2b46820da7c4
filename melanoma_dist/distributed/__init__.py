"""Runs units on a Ray cluster: the layout over GPUs, checks of the machines, starts, restarts and reports."""
