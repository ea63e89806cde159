"""After the runs: tables, fronts, figures, report, export."""
