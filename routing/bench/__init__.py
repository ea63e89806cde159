"""Benchmarks: every figure a ratio measured side by side in one run (`routing bench`)."""

GROUPS = {
    "routing": "routing.bench.routed",
    "pruning": "routing.bench.pruning",
    "literature": "routing.bench.literature",
    "data": "routing.bench.data",
    "images": "routing.bench.images",
    "training": "routing.bench.training",
    "scaling": "routing.bench.scaling",
    "latency": "routing.bench.latency",
    "start": "routing.bench.start",
    "sweep": "search_spaces.bench.utilisation",
    "search": "search_spaces.bench.search_value",
    "replay": "search_spaces.bench.replay",
}
"""What `routing bench` measures, and the module whose ``bench(quick)`` returns its tables."""
