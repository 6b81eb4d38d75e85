"""What this package raises on purpose."""

from __future__ import annotations


class AnalysisError(ValueError):
    """Root of what this package raises on purpose: a file, a folder or a frame cannot be used."""


class NoRunsError(AnalysisError):
    """There is no run, or no row, where one was expected."""


class DamagedRunError(AnalysisError):
    """A file of a run is damaged; the message names the file and the line."""
