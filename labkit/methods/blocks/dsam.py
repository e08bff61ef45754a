"""DNFAD's dynamic spatial attention module: which positions a coupling subnet listens to."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class IDConv(nn.Module):
    """A depthwise convolution whose kernel is drawn per image from G learned ones.

    k(x) = sum_g softmax_g(A(pool_3x3 x))_g P_g,   b(x) likewise from the global average
    (TransXNet's dynamic convolution as DNFAD uses it; c = 2 channels, G = 8, kernel 3.)
    """

    def __init__(self, channels: int = 2, groups: int = 8, kernel: int = 3, reduction: int = 2):
        super().__init__()
        self.groups, self.kernel = groups, kernel
        self.kernels = nn.Parameter(torch.empty(groups, channels, kernel, kernel))
        self.biases = nn.Parameter(torch.empty(groups, channels))
        for parameter in (self.kernels, self.biases):
            nn.init.trunc_normal_(parameter, std=0.02)
        inner = channels // reduction
        self.attend = nn.Sequential(
            nn.Conv2d(channels, inner, 1), nn.Conv2d(inner, groups * channels, 1)
        )

    def weights(self, x: Tensor, size: int) -> Tensor:
        """(B, G, c, size, size), summing to one over the groups G."""
        logits = self.attend(F.adaptive_avg_pool2d(x, size))
        return logits.reshape(len(x), self.groups, -1, size, size).softmax(1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, c, h, w) -> (B, c, h, w), each image with its own kernel and bias."""
        kernel = (self.weights(x, self.kernel) * self.kernels).sum(1).flatten(2)  # (B, c, k*k)
        bias = (self.weights(x, 1)[..., 0, 0] * self.biases).sum(1)  # (B, c)
        windows = F.unfold(x, self.kernel, padding=self.kernel // 2)  # (B, c*k*k, h*w)
        windows = windows.reshape(*x.shape[:2], self.kernel**2, -1)
        out = (windows * kernel[..., None]).sum(2) + bias[..., None]
        return out.reshape(x.shape)


class DSAM(nn.Module):
    """Dynamic spatial attention: which positions matter, from channel mean and maximum.

    m = conv(IDConv([mean_c X, max_c X])),   X -> X * sigmoid(m)    (the code: X + m sigmoid(m))
    """

    def __init__(self, gate: str, gate_kernel: int):
        super().__init__()
        self.gate = gate
        self.dynamic = IDConv()
        self.mix = nn.Conv2d(2, 1, gate_kernel, padding=gate_kernel // 2, bias=False)

    def gate_map(self, x: Tensor) -> Tensor:
        """m before the sigmoid, (B, 1, h, w)."""
        return self.mix(self.dynamic(torch.cat([x.mean(1, True), x.amax(1, True)], 1)))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> the same shape, gated by one map for all channels."""
        m = self.gate_map(x)
        return x * torch.sigmoid(m) if self.gate == "multiply" else x + F.silu(m)
