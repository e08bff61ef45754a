"""FrEIA's blocks as steps of our flows.

FrEIA calls `module((x,), c, rev, jac)` and gives one log-det per image. Its coupling blocks sum
their log-scales over as many dimensions as they were built for, so one that was built for a
single position, dims (C,), gives the log-det at each position of a map. `AllInOneBlock` needs two
numbers changed for that (`_PositionalAllInOne`). Any other block runs on rows (`AtPositions`).
"""

import warnings
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from labkit.core.records import FlowOut
from labkit.flows.steps import AffineCoupling, Step, Subnet, soft_clamp, zeros_per_position
from labkit.flows.whitening import exact

with warnings.catch_warnings():  # FrEIA 0.2 has an invalid escape in a docstring
    warnings.simplefilter("ignore")
    from FrEIA import modules
    from FrEIA.modules import InvertibleModule

# what couples two halves: labkit's own step, or one of FrEIA's blocks
Coupling = Literal["affine", "nice", "rnvp", "gin", "glow", "allinone"]
BLOCKS = {
    "nice": modules.NICECouplingBlock,  # additive: a uniformly scaling flow, arXiv 2510.09452
    "rnvp": modules.RNVPCouplingBlock,
    "gin": modules.GINCouplingBlock,
    "glow": modules.GLOWCouplingBlock,
}


def coupling_step(
    coupling: Coupling,
    channels: int,
    subnet: Subnet,
    cond_channels: int = 0,
    clamp: float = 2.0,
    grid_dims: int = 0,
    **affine: Any,
) -> Step:
    """What couples two halves: labkit's step or a block of FrEIA, with a log-det per position.

    affine    `flows.AffineCoupling`; the arguments `affine` are for it alone
    nice      b' = b + t(a), then a alike: the log-det is 0, whatever x is
    gin       affine, its log-scales centred over the channels: the log-det is 0
    rnvp      affine, s and t by a network each; glow: both by one network
    allinone  affine on one half, then a scale per channel and a permutation

    Args: subnet, cond_channels, clamp: as of `AffineCoupling`.
          grid_dims: 2 for maps (B, C, h, w), 1 for (B, C, N), 0 for rows; `allinone` alone asks.

    >>> step = coupling_step("nice", 4, torch.nn.Linear)
    >>> step(torch.randn(3, 4)).logdet
    tensor([0., 0., 0.])
    """
    if coupling == "affine":
        return AffineCoupling(channels, subnet, cond_channels, clamp, **affine)
    cond = [(cond_channels,)] if cond_channels else []
    if coupling == "allinone":
        return FreiaStep(_PositionalAllInOne(channels, subnet, cond_channels, clamp, grid_dims))
    bound = {"clamp": clamp, "clamp_activation": partial(soft_clamp, alpha=1.0)}
    options = {} if coupling == "nice" else bound
    block = BLOCKS[coupling]([(channels,)], cond, subnet_constructor=subnet, **options)
    if coupling == "nice":
        block.f_clamp = None  # a lambda that is never called and cannot go to another process
    return FreiaStep(block)


class FreiaStep(Step):
    """A FrEIA module with one input and one output as a step; it computes in the type of x.

    Raises: ValueError if it gives one log-det per image where x has several positions.
    """

    def __init__(self, module: InvertibleModule):
        super().__init__()
        self.module = module

    def forward(self, x: Tensor, cond: Tensor | None = None) -> FlowOut:
        """(x) -> (z, log-det per position)."""
        with exact(x.device):
            (z,), logdet = self.module((x,), [] if cond is None else [cond])
        zeros = zeros_per_position(x)
        logdet = torch.as_tensor(logdet).to(zeros)
        if logdet.ndim and logdet.shape != zeros.shape:
            raise ValueError(
                f"FrEIA's {type(self.module).__name__} gives one log-det per image, but x has "
                f"{x[0, 0].numel()} positions; build it for one and put it in AtPositions."
            )
        return FlowOut(z, zeros + logdet)

    def inverse(self, z: Tensor, cond: Tensor | None = None) -> Tensor:
        """(z) -> x."""
        with exact(z.device):
            (x,), _ = self.module((z,), [] if cond is None else [cond], rev=True, jac=False)
        return x


class _PositionalAllInOne(modules.AllInOneBlock):
    """FrEIA's AllInOneBlock, its log-det per position and its permutation drawn by torch."""

    def __init__(
        self, channels: int, subnet: Subnet, cond_channels: int, clamp: float, grid_dims: int
    ):
        ones = (1,) * grid_dims
        cond = [(cond_channels, *ones)] if cond_channels else []
        options = {"subnet_constructor": subnet, "affine_clamping": clamp}
        super().__init__([(channels, *ones)], cond, **options)
        self.sum_dims = (1,)  # channels, not positions
        self.global_scale_activation = self._scale  # FrEIA's lambda fits no other process
        mixing = torch.eye(channels)[torch.randperm(channels)].reshape(channels, channels, *ones)
        self.w_perm = nn.Parameter(mixing, requires_grad=False)  # on any device, meta included
        self.w_perm_inv = nn.Parameter(mixing.transpose(0, 1).contiguous(), requires_grad=False)

    def _scale(self, raw: Tensor) -> Tensor:
        return 0.1 * self.softplus(raw)

    def _permute(self, x: Tensor, rev: bool = False) -> tuple[Tensor, Tensor]:
        """As FrEIA's; `forward` there multiplies the log-det by the number of positions."""
        z, logdet = super()._permute(x, rev)
        return z, logdet / x[0, 0].numel()
