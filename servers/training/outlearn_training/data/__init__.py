"""Real data as tasks: sources, checks, duplicates, splits, balance. Needs no torch."""
