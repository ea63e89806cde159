"""What trained models attend to: maps, numbers, hiding patches, before and after pruning, and a computed report."""

from analysis.attention.analyze import COLUMNS, AttentionSummary, analyze_attention
from analysis.attention.plots import SampleView
from analysis.attention.reading import read_attention, read_inner_attention
from analysis.attention.statistics import LayerStatistics, statistics
from routing.models.attention import AttentionLayer

__all__ = [
    "COLUMNS",
    "AttentionLayer",
    "AttentionSummary",
    "LayerStatistics",
    "SampleView",
    "analyze_attention",
    "read_attention",
    "read_inner_attention",
    "statistics",
]
