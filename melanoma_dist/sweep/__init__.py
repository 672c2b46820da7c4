"""Many configurations searched over the folds of one data set, and most of them stopped early."""
