"""From the challenges' archives to one prepared data set: formats, merging, shards, folds, audit, demo data."""
