"""Whole detectors for other runtimes and other projects."""

from .detector import DetectorReport, export_detector

__all__ = ["DetectorReport", "export_detector"]
