"""SANF's subnets: an MLP of the passive half, fused with what it finds in the other tokens.

Ma et al., "Semantic-Aware Normalizing Flow with Feature Fusion", eq. 10-19. Rows are tokens: x
(B, Q, h) the passive half of what flows, Y (B, M, h) the matching half of the condition.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from labkit.flows.steps import Step, Subnet, soft_clamp


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
        self.q = nn.Linear(width, width, bias=False)
        self.k = nn.Linear(width, width, bias=False)
        self.v = nn.Linear(width, width, bias=False)
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

    KINDS = ("none", "mean", "query", "token")

    def __init__(
        self, width: int, out: int, fusion: str, hidden: int, heads: int, zero_init: bool = False
    ):
        super().__init__()
        if fusion not in self.KINDS:
            raise ValueError(f"fusion is {fusion!r}; use one of {', '.join(self.KINDS)}.")
        self.fusion = fusion
        layers: list[nn.Module] = []
        for inputs in (width, hidden, hidden):
            layers += [nn.Linear(inputs, hidden), nn.ReLU()]
        self.mlp = nn.Sequential(*layers)
        fused = {"none": 0, "mean": width}.get(fusion, 2 * width)
        if fusion == "query":
            self.query = nn.Parameter(0.02 * torch.randn(width))
        if fusion in ("query", "token"):
            self.attention = CrossAttention(width, fused, heads)
            self.gamma = nn.Parameter(torch.ones(fused))
        self.last = nn.Linear(hidden + fused, out)
        if zero_init:
            nn.init.zeros_(self.last.weight)
            nn.init.zeros_(self.last.bias)

    def forward(self, x: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor | None]:
        """x (B, Q, h), Y (B, M, h) -> (B, Q, out) and the attention's weights, if there are any.

        The weights are (B, heads, Q, Q + M), of a learned query (B, heads, 1, 1 + M).
        """
        told, weights = self.mlp(x), None
        if self.fusion == "none":
            return self.last(told), None
        if self.fusion == "mean":
            fused = tokens.mean(1, keepdim=True)
        else:
            asking = x if self.fusion == "token" else self.query.expand(len(x), 1, -1)
            fused, weights = self.attention(asking, tokens)
            fused = fused * self.gamma
        fused = fused.expand(-1, x.shape[1], -1)
        return self.last(torch.cat([told, fused], -1)), weights


class FusionCoupling(Step):
    """Two-sided affine coupling whose subnets also see tokens that stay as they are (eq. 2-9).

    x2' = x2 * exp(sigma(s1)) + t1,   (s1, t1) = FFM1(x1, Y1)
    x1' = x1 * exp(sigma(s2)) + t2,   (s2, t2) = FFM2(x2', Y2)

    Eq. 4 and 6 leave out the clamp sigma that eq. 9 has. [Y1, Y2] are the halves of the tokens'
    channels in `order`: with the flow's own permutations so far they match [x1, x2].

    Args:   order: (d,) index. subnet: (h, d) -> FFM.
    Raises: ValueError if the number of channels is odd.
    """

    def __init__(self, channels: int, subnet: Subnet, order: Tensor, clamp: float = 2.0):
        super().__init__(channels)
        if channels % 2:
            raise ValueError(f"Both halves of a token are of one width; {channels} is odd.")
        self.clamp, self.half = clamp, channels // 2
        self.subnet, self.subnet2 = subnet(self.half, channels), subnet(self.half, channels)
        self.register_buffer("order", order.clone())

    def halves(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Y1 and Y2, (B, M, h) each, of tokens (B, M, d)."""
        return tokens[..., self.order].split(self.half, -1)

    def look(self, x: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor, list[Tensor | None]]:
        """x (B, d) or (B, d, Q) -> z, lambda (B,) or (B, Q), and both subnets' weights."""
        a, b = x.split(self.half, 1)
        first, second = self.halves(tokens)
        s, t, seen = self._coefficients(self.subnet, a, first)
        b, logdet = b * s.exp() + t, s.sum(1)
        s, t, seen2 = self._coefficients(self.subnet2, b, second)
        a, logdet = a * s.exp() + t, logdet + s.sum(1)
        return torch.cat([a, b], 1), logdet, [seen, seen2]

    def to_latent(self, x, cond):
        """(x, tokens) -> (z, lambda), lambda the sum over channels of both halves' log-scales."""
        return self.look(x, cond)[:2]

    def to_data(self, z, cond):
        """The same two half-steps undone, last first."""
        a, b = z.split(self.half, 1)
        first, second = self.halves(cond)
        s, t, _ = self._coefficients(self.subnet2, b, second)
        a = (a - t) * (-s).exp()
        s, t, _ = self._coefficients(self.subnet, a, first)
        return torch.cat([a, (b - t) * (-s).exp()], 1)

    def _coefficients(self, subnet, passive, tokens):
        one = passive.ndim == 2
        told, seen = subnet(passive[:, None] if one else passive.transpose(1, 2), tokens)
        told = told[:, 0] if one else told.transpose(1, 2)
        s, t = told.to(passive.dtype).chunk(2, 1)  # float32 under bf16 autocast
        return soft_clamp(s, self.clamp), t, seen
