"""Fetching the challenges' own files: `data download`."""
