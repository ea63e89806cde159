"""Training: the loop, budgets, checkpoints, seeding."""
