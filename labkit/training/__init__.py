"""An experiment from config to a stored run."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__, submod_attrs={"experiment": ["Experiment"], "run": ["Run", "load_run"]}
)
