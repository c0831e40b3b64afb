"""What a figure is held against."""

from __future__ import annotations


def judged(value: float, budget: float) -> str:
    """Say whether a figure keeps its budget."""
    return "kept" if value <= budget else "EXCEEDED"
