"""SANF's subnets: an MLP of the passive half, fused with what it finds in the other tokens.

Ma et al., "Semantic-Aware Normalizing Flow with Feature Fusion", eq. 10-19. Rows are tokens: x
(B, Q, h) the passive half of what flows, Y (B, M, h) the matching half of the condition.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn

from labkit.flows.steps import AffineCoupling, Subnet, soft_clamp
from labkit.methods.subnets import three_layers, zeroed


class CrossAttention(nn.Module):
    """Attention of x over itself and the tokens Y, by head (eq. 12-16).

    m = [x; Y],   A = softmax(Q K^T / sqrt(d_k)),   Out = W_o (A V) + b_o,   d_k = h / heads

    Eq. 15 prints the division outside the softmax, where rows of A would not sum to 1. Weights
    are needed as a map, so they are written out instead of left to a fused kernel.

    Raises: ValueError if the width is no multiple of `heads`.
    """

    def __init__(self, width: int, out: int, heads: int):
        super().__init__()
        if width % heads:
            raise ValueError(
                f"heads={heads} does not divide {width}, half the width of a token; choose a "
                "number of heads that does."
            )
        self.heads = heads
        self.q, self.k, self.v = (nn.Linear(width, width, bias=False) for _ in range(3))
        self.out = nn.Linear(width, out)

    def forward(self, x: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """x (B, Q, h), Y (B, M, h) -> Out (B, Q, out) and A (B, heads, Q, Q + M)."""
        m = torch.cat([x, tokens], 1)
        q, k, v = (
            layer(rows).unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (B, heads, rows, d_k)
            for layer, rows in ((self.q, x), (self.k, m), (self.v, m))
        )
        weights = (q @ k.transpose(2, 3) / math.sqrt(q.shape[-1])).softmax(-1)
        return self.out((weights @ v).transpose(1, 2).flatten(2)), weights


class FFM(nn.Module):
    """The feature fusion module: [W_s, W_t] = FC([MLP(x), Out]) (eq. 19).

    none:   no Out
    mean:   Out = mean of Y                                   (M1, eq. 10)
    query:  Out = gamma * attention of a learned query         (M2, eq. 11-16)
    token:  Out = gamma * attention of x itself                (M3, eq. 17-18)

    The active half never comes in, so the coupling stays invertible.

    Args: width: h; hidden: width of the MLP's three layers; zero_init: the last layer is zero.
    """

    def __init__(
        self, width: int, out: int, fusion: str, hidden: int, heads: int, zero_init: bool = False
    ):
        super().__init__()
        self.fusion = fusion
        self.mlp = nn.Sequential(*three_layers(width, hidden))
        fused = {"none": 0, "mean": width}.get(fusion, 2 * width)
        if fusion == "query":
            self.query = nn.Parameter(0.02 * torch.randn(width))
        if fusion in ("query", "token"):
            self.attention = CrossAttention(width, fused, heads)
            self.gamma = nn.Parameter(torch.ones(fused))
        self.last = zeroed(nn.Linear(hidden + fused, out), zero_init)

    def forward(self, x: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor | None]:
        """x (B, Q, h), Y (B, M, h) -> (B, Q, out) and the attention's weights, if there are any.

        The weights are (B, heads, Q, Q + M), of a learned query (B, heads, 1, 1 + M).
        """
        parts, weights = [self.mlp(x)], None
        if self.fusion == "mean":
            parts += [tokens.mean(1, keepdim=True).expand(-1, x.shape[1], -1)]
        elif self.fusion != "none":
            asking = x if self.fusion == "token" else self.query.expand(len(x), 1, -1)
            answer, weights = self.attention(asking, tokens)
            parts += [(answer * self.gamma).expand(-1, x.shape[1], -1)]
        return self.last(torch.cat(parts, -1)), weights


class FusionCoupling(AffineCoupling):
    """Two-sided affine coupling whose subnets also see tokens that stay as they are (eq. 2-9).

    x2' = x2 * exp(sigma(s1)) + t1,   (s1, t1) = FFM1(x1, Y1)
    x1' = x1 * exp(sigma(s2)) + t2,   (s2, t2) = FFM2(x2', Y2)

    Eq. 4 and 6 leave out the clamp sigma that eq. 9 has. [Y1, Y2] are the halves of the tokens'
    channels in `order`: with the flow's own permutations so far they match [x1, x2]. `half_steps`
    also gives both subnets' attention weights.

    Args:   order: (d,) index. subnet: (h, d) -> FFM. options: clamp and bound.
    Raises: ValueError if the number of channels is odd.
    """

    def __init__(self, channels: int, subnet: Subnet, order: Tensor, **options: Any):
        if channels % 2:
            raise ValueError(f"Both halves of a token are of one width; {channels} is odd.")
        super().__init__(channels, subnet, **options)
        self.half = channels // 2
        self.register_buffer("order", order.clone())

    def halves(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Y1 and Y2, (B, M, h) each, of tokens (B, M, d)."""
        return tokens[..., self.order].split(self.half, -1)

    def _coefficients(
        self, subnet: nn.Module, passive: Tensor, cond: Tensor
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """s and t in the shape of the passive half, and the subnet's attention weights."""
        rows = passive.reshape(*passive.shape[:2], -1).transpose(1, 2)  # (B, Q, h)
        raw, weights = subnet(rows, self.halves(cond)[subnet is self.subnet2])
        raw = raw.transpose(1, 2).reshape(len(raw), -1, *passive.shape[2:])
        s, t = raw.to(passive.dtype).chunk(2, 1)  # float32 under bf16 autocast
        return soft_clamp(s, self.clamp, self.bound == "rounded"), t, weights
