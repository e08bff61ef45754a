"""Frozen backbones and the feature cache: images -> Features, once."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=["backbones"],
    submod_attrs={"cache": ["DefectSet", "FeatureCache", "FeatureSet"]},
)
