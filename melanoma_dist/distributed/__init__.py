"""Units as Ray Train jobs on one machine or a cluster."""
