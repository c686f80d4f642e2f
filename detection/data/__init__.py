"""Data sets for detection."""
