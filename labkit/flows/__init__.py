"""Invertible steps, flows made of them, and likelihoods."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=["likelihood", "steps", "whitening"],
    submod_attrs={
        "likelihood": ["anomaly", "base_density", "fuse", "log_likelihood", "nll", "upsample"],
        "steps": [
            "AdditiveCoupling",
            "AffineCoupling",
            "ChannelAffine",
            "Flow",
            "Permute",
            "Rotate",
            "Step",
            "position_code",
            "soft_clamp",
        ],
    },
)
