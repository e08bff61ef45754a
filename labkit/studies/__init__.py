"""Ablations: a YAML file becomes jobs, results, a table and a figure."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=["cards", "jobs", "plots", "published", "tables", "verdicts"],
    submod_attrs={
        "jobs": ["detector", "rescore"],
        "plots": ["draw", "highlights", "maps"],
        "runner": ["folder", "run", "states", "stored"],
        "spec": ["get", "names"],
        "tables": ["notes", "side_by_side", "variants"],
        "verdicts": ["verdict"],
    },
)
