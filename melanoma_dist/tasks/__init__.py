"""What a command does for each task around the training of its folds: folds, model, results."""
