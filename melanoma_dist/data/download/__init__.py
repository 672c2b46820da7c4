"""Download the challenges' official files: `data download`."""
