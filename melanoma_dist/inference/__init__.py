"""What a finished run does with an image."""
