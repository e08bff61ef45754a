"""Figures that several parts of the lab draw; each function returns one, none shows it."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=["style"],
    submod_attrs={
        "comparisons": ["deviation_plot", "scatter_groups"],
        "images": ["contact_sheet", "defect_gallery", "defect_steps"],
        "latents": ["latent_histogram"],
        "maps": ["map_grid", "overlay", "strip"],
        "plots": ["curves", "draw_scores", "lines", "score_histogram"],
        "style": ["caption", "new_figure"],
        "training": ["reconstructions", "training_curves"],
    },
)
