"""Invertible steps, flows made of them, and likelihoods."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=["likelihood", "steps", "whitening"],
    submod_attrs={
        "flow": ["Flow", "position_code"],
        "freia": ["FreiaStep", "coupling_step"],
        "likelihood": ["anomaly", "base_density", "fuse", "log_likelihood", "nll", "upsample"],
        "steps": ["AffineCoupling", "ChannelAffine", "Permute", "Rotate", "Step", "soft_clamp"],
    },
)
