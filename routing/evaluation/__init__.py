"""Evaluation: metrics and realised compute of a split, operating points, certificate, latency."""
