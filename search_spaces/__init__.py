"""Many runs: study file to trials on Ray Tune to the ledger and the results table."""
