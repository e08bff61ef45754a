"""Figures that several parts of the lab draw; each function returns one, none shows it."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=["style"],
    submod_attrs={
        "clouds": ["cloud"],
        "galleries": ["defect_gallery", "defect_steps"],
        "images": ["contact_sheet"],
        "maps": ["map_grid", "overlay", "strip"],
        "plots": ["curves", "draw_scores", "latent_histogram", "lines", "score_histogram"],
        "style": ["caption"],
        "training": ["reconstructions", "training_curves"],
        "variants": ["deviation_plot"],
    },
)
