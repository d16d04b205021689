"""A config becomes a plan of stages (train, fine-tune, evaluate), each run, skipped or resumed."""
