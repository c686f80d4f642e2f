"""Whole detectors for other runtimes."""

from .detector import DetectorReport, export_detector

__all__ = ["DetectorReport", "export_detector"]
