"""What trained models attend to: maps, numbers, hiding patches, before and after pruning, and a computed report."""

from analysis.attention.analyze import COLUMNS, AttentionSummary, analyze_attention

__all__ = ["COLUMNS", "AttentionSummary", "analyze_attention"]
