"""Files: whole or not there, read with limits, held by one process."""
