"""Instruments to look inside a trained flow, and the widgets of the notebooks."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=["microscope", "toy_2d"],
    submod_attrs={
        "comparison": [
            "RARE",
            "RARITY",
            "agreement",
            "disagreements",
            "rarity",
            "scatter_figure",
            "shared",
        ],
        "exercises": ["exercise", "given", "solution"],
        "widgets": ["Panel", "budget_banner", "map_panel", "score_panel"],
    },
)
