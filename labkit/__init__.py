"""labkit: an interactive laboratory for normalizing-flow image anomaly detection.

import labkit
run = labkit.train("dnfad", "elpv/mono")
print(run.predict("cell.png")[0].sentence())

The rest by Tab: `data` (data sets by name), `methods`, `flows` (steps, likelihoods), `metrics`,
`figures`, `studies` (ablations), `explore` (instruments and widgets), `load_run`, and `check`,
which judges the answer to an exercise.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,  # loaded on first use: torch takes seconds
    submodules=["data", "explore", "figures", "flows", "methods", "studies"],
    submod_attrs={
        "evaluation": ["metrics"],
        "explore.check": ["check"],
        "training.run": ["load_run"],
        "training.train": ["train"],
    },
)
