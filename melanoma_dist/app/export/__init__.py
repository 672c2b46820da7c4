"""Export a finished run to files that run without this package."""
