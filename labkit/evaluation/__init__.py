"""Detector, calibration, metrics and cost."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=["cost", "metrics"],
    submod_attrs={"calibration": ["Calibration"], "detector": ["Detector", "Prediction"]},
)
