"""DADF's transformer: one token grid for all levels, rebuilt by itself and from memory.

Yao et al., section III-B. Two streams of tokens run through the same blocks: F are the image's,
M are learned. F attends to itself; M is read by attention alone, so that an image can choose
among what the memory holds and add nothing to it.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from labkit.flows.flow import position_code

RATIO, EPS = 4, 1e-6  # of the MLP and of LayerNorm, as in MAE's encoder, which the paper names
SPREAD = 0.02  # standard deviation of the memory at the start
Level = tuple[int, int, int]  # C, h, w


def patchify(level: Tensor, patch: int) -> Tensor:
    """(B, C, h, w) -> tokens (B, L, C p^2), row by row; p x p neighbours in each."""
    return F.pixel_unshuffle(level, patch).flatten(2).transpose(1, 2)


def unpatchify(tokens: Tensor, patch: int, grid: tuple[int, int]) -> Tensor:
    """The inverse of `patchify`; `grid` is that of the tokens."""
    return F.pixel_shuffle(tokens.transpose(1, 2).unflatten(2, grid), patch)


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """softmax(Q K^T / sqrt(d)) V, (B, heads, L, d): every row lies in the convex hull of V's."""
    return F.scaled_dot_product_attention(q, k, v)


class Attention(nn.Module):
    """Multi-head attention whose queries, keys and values may come from different streams."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.q, self.k, self.v, self.out = (nn.Linear(width, width) for _ in range(4))

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Three of (B, L, width) or (1, L, width) -> (B, L, width)."""
        layers = ((self.q, query), (self.k, key), (self.v, value))
        split = (layer(x).unflatten(2, (self.heads, -1)).transpose(1, 2) for layer, x in layers)
        n = max(len(query), len(key), len(value))
        mixed = attend(*(part.expand(n, -1, -1, -1) for part in split))  # (B, heads, L, d)
        return self.out(mixed.transpose(1, 2).flatten(2))


class Stream(nn.Module):
    """The weights by which a stream passes a block: norms, attention and MLP."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.before, self.after = (nn.LayerNorm(width, eps=EPS) for _ in range(2))
        self.attention = Attention(width, heads)
        inner = RATIO * width
        self.mlp = nn.Sequential(nn.Linear(width, inner), nn.GELU(), nn.Linear(inner, width))

    def finish(self, x: Tensor) -> Tensor:
        """x + MLP(LN(x))."""
        return x + self.mlp(self.after(x))


class Block(nn.Module):
    """Dual attention: F by itself, M from memory values alone (Fig. 2b, section III-B.2).

    F' = F + A(F, F, F),   M' = R + A(Q, K, M),   each then x + MLP(LN(x))
    paper:     Q = F, K = M          official:  Q = M, K = F
    R = M (`own`), 0 (`none`), or F (`query`), by which anomalies leak into the memory's answer
    """

    def __init__(self, spec: Any, width: int):
        super().__init__()
        self.paper, self.residual = spec.memory_qk == "paper", spec.memory_residual
        self.own = Stream(width, spec.heads)
        self.memory = None if spec.share_weights else Stream(width, spec.heads)

    def forward(self, f: Tensor, m: Tensor) -> tuple[Tensor, Tensor]:
        """F (B, L, W) and M (B or 1, L, W) -> both, (B, L, W)."""
        own, memory = self.own, self.memory or self.own
        normed, held = own.before(f), memory.before(m)
        query, key = (normed, held) if self.paper else (held, normed)
        answer = memory.attention(query, key, held)
        if self.residual != "none":
            answer = answer + (m if self.residual == "own" else f)
        f = f + own.attention(normed, normed, normed)
        return own.finish(f), memory.finish(answer)


class Heads(nn.Module):
    """The last norm and a linear layer per level, from tokens back to maps."""

    def __init__(self, width: int, levels: Sequence[Level], patches: Sequence[int]):
        super().__init__()
        self.norm = nn.LayerNorm(width, eps=EPS)
        sizes = (c * patch**2 for (c, _, _), patch in zip(levels, patches, strict=True))
        self.levels = nn.ModuleList(nn.Linear(width, size) for size in sizes)


class DualAttention(nn.Module):
    """Feature maps of several levels -> their rebuilding by the image and by memory.

    A level's cells are joined p x p to one token, so that all levels have the same L tokens
    (`patches`; a linear layer on them is a convolution of kernel and stride p). The levels' tokens
    are concatenated on channels, F of width W = levels x `embed`; memory M is of the same size,
    with the same fixed position code.

    Args: spec: those of `DADFSpec`, embed to encoder; levels: (C, h, w);
          grid: of the tokens, which divides each level's by the same p in height and width.
    """

    def __init__(self, spec: Any, levels: Sequence[Level], grid: tuple[int, int]):
        super().__init__()
        self.grid, self.patches = grid, [h // grid[0] for _, h, _ in levels]
        width = len(levels) * spec.embed
        if width % spec.heads or width % 4:
            raise ValueError(
                f"{len(levels)} levels x embed={spec.embed} is {width} wide, which heads="
                f"{spec.heads} and 4 must divide; change embed or heads."
            )
        pairs = zip(levels, self.patches, strict=True)
        self.embed = nn.ModuleList(nn.Linear(c * p**2, spec.embed) for (c, _, _), p in pairs)
        self.memory = nn.Parameter(torch.empty(1, grid[0] * grid[1], width))
        self.blocks = nn.ModuleList(Block(spec, width) for _ in range(spec.depth))
        self.heads = Heads(width, levels, self.patches)
        self.memory_heads = None if spec.share_weights else Heads(width, levels, self.patches)
        code = position_code(width, *grid).flatten(1).T[None]
        self.register_buffer("code", code, persistent=False)
        nn.init.normal_(self.memory, std=SPREAD)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        if spec.encoder == "official":
            self._follow_code()

    def _follow_code(self) -> None:
        """LayerNorm's usual epsilon; sines, then cosines; q, k and v drawn as one layer."""
        self.code = self.code.unflatten(2, (2, -1, 2)).transpose(3, 4).flatten(2)
        for module in self.modules():
            if isinstance(module, nn.LayerNorm):
                module.eps = 1e-5
            elif isinstance(module, Attention):
                for layer in (module.q, module.k, module.v):
                    layer.weight.data.mul_(0.5**0.5)  # Xavier of W inputs and 3 W outputs

    def tokens(self, levels: Sequence[Tensor]) -> Tensor:
        """F at the start, (B, L, W): each level's patches by its own layer, and the position."""
        triples = zip(self.embed, levels, self.patches, strict=True)
        tokens = [layer(patchify(level, patch)) for layer, level, patch in triples]
        return torch.cat(tokens, 2) + self.code

    def rebuilt(self, tokens: Tensor, heads: Heads) -> list[Tensor]:
        """Tokens of a stream as maps of each level, (B, C, h, w)."""
        normed = heads.norm(tokens)
        pairs = zip(heads.levels, self.patches, strict=True)
        return [unpatchify(layer(normed), patch, self.grid) for layer, patch in pairs]

    def forward(self, levels: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Levels (B, C, h, w) -> the same by self-attention, and by memory attention."""
        return self.from_tokens(self.tokens(levels))

    def from_tokens(self, tokens: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """The same from the embedded levels, (B, L, W): F and M through all blocks."""
        f, m = tokens, self.memory + self.code
        for block in self.blocks:
            f, m = block(f, m)
        return self.rebuilt(f, self.heads), self.rebuilt(m, self.memory_heads or self.heads)
