"""Data sets by name, folders of images, splits; `data.load(NAME or FOLDER)` is the way in."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=["benchmarks", "builtin", "procedural", "synthetic"],
    submod_attrs={
        "catalogue": ["load", "members", "names"],
        "checks": ["check"],
    },
)
