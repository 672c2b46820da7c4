"""What others do with a finished run: predict images on the command line."""
