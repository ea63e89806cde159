"""Configuration of one run to its trial record: data, model, training, evaluation, compute."""

from __future__ import annotations

__version__ = "0.1.0"
