"""Benchmarks of the study engine (`routing bench sweep`) against scripts that a user would write without it."""
