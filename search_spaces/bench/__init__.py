"""Benchmarks of the study engine (`routing bench sweep`): against what a user would write without it."""
