"""Weights into detectors: whole ones, or a backbone's; heads mapped by class names; what weights say of the config."""
