"""Detector, calibration, metrics and cost."""
