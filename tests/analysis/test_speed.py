"""Ten thousand finished trials are tabled, fronted and reported within seconds and a gigabyte."""

from __future__ import annotations

import subprocess
import sys

import pytest

SCRIPT = """
import re, sys, time
start = time.process_time()
from analysis.report import analyze
from analysis.findings.summary import summarise
from analysis.read.results import read_results
summarise(read_results(sys.argv[1]))
tables = time.process_time() - start
found = analyze([sys.argv[1]])
peak = int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read()).group(1)) / 1024
print(tables, time.process_time() - start, peak, len(found.front))
"""


@pytest.mark.slow
def test_ten_thousand_trials(make_results, make_longer):
    folder = make_results(trials=500, unfinished=False)
    make_longer(folder, 20)
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(folder)], capture_output=True, text=True, timeout=300, check=True
    )
    tables_seconds, all_seconds, megabytes, points = map(float, done.stdout.split())
    assert tables_seconds < 10
    assert all_seconds < 60
    assert megabytes < 1000
    assert points > 3
    assert (folder / "report.html").stat().st_size < 5_500_000
