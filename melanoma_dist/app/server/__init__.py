"""Answers over HTTP with a run's ensemble: batches, limits, security, the API and the page."""
