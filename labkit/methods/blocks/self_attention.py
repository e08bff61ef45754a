"""The subnets of selfsup's couplings: two convolutions, self-attention, a convolution.

Chiu & Lai, section 3.2.1 and Figure 6. The text names "1*1 and 3*3 convolution layers and one
4-head self-attention layer" with residual connections, "only four layers"; order and widths
stand in a figure that our text lacks. Those here give the 3.5 M parameters of Table 8.
"""

from torch import Tensor, nn
from torch.nn import functional as F

from labkit.methods.subnets import zeroed


class SelfAttention(nn.Module):
    """Multi-head self-attention over the positions of a map, without a code of their places.

    softmax(Q K^T / sqrt(d)) V by head, d = width / heads, then a linear layer (Vaswani et al.)

    The same as `nn.MultiheadAttention`, whose shortcut in eval mode escapes torch's flop counter
    and rounds otherwise than in training.
    """

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, width, h, w) -> the same shape; every position sees every other."""
        rows = x.flatten(2).transpose(1, 2)  # (B, h w, width)
        split = self.qkv(rows).unflatten(-1, (3, self.heads, -1))  # (B, h w, 3, heads, d)
        q, k, v = split.permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v)  # (B, heads, h w, d)
        return self.out(mixed.transpose(1, 2).flatten(2)).transpose(1, 2).reshape(x.shape)


class Subnet(nn.Module):
    """conv 1x1, conv 3x3, self-attention, conv 1x1: passive half to [W_s, W_t].

    residual:     h = relu(conv1 x);  h += relu(conv3 h);  h += attention(h);  conv1 h
    plain:        the same four layers without the two sums                     ("w/o residual")
    convolution:  the same without attention and sums; three layers

    Args: layers: one of the three; hidden: inner channels / channels in, rounded to a multiple of
          `heads`; zero_init: the last convolution is zero: the coupling starts as the identity.
    """

    def __init__(
        self, c_in: int, c_out: int, layers: str, hidden: float, heads: int, zero_init: bool
    ):
        super().__init__()
        width = heads * max(1, round(hidden * c_in / heads))
        self.residual = layers == "residual"
        self.first = nn.Conv2d(c_in, width, 1)
        self.near = nn.Conv2d(width, width, 3, padding=1)
        self.far = None if layers == "convolution" else SelfAttention(width, heads)
        self.last = zeroed(nn.Conv2d(width, c_out, 1), zero_init)

    def forward(self, x: Tensor) -> Tensor:
        """(B, c_in, h, w) -> (B, c_out, h, w)."""
        h = F.relu(self.first(x))
        h = F.relu(self.near(h)) + (h if self.residual else 0)
        if self.far is not None:
            h = self.far(h) + (h if self.residual else 0)
        return self.last(h)
