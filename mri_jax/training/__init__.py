"""State, step, freezing, folds, stopping and checkpoints."""
