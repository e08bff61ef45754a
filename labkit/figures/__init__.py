"""Figures that several parts of the lab draw; each function returns one, none shows it."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=["style"],
    submod_attrs={
        "images": ["contact_sheet", "defect_gallery", "defect_steps"],
        "maps": ["map_grid", "overlay", "reconstructions", "strip"],
        "plots": [
            "change_table",
            "curves",
            "deviation_plot",
            "draw_scores",
            "latent_histogram",
            "lines",
            "scatter_groups",
            "score_histogram",
            "training_curves",
        ],
        "style": ["caption", "new_figure"],
    },
)
