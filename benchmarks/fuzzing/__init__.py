"""What `benchmarks/fuzz.py` does: samples, parsers, mutations, and the child process that brings them together."""
