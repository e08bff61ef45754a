"""What the tests of parity share: weights in the official modules' names, and their formulas.

Each test draws a state dict of the official repository's names and shapes, computes z, log-det,
map and score from it by the formulas in the sources named there, and carries it into the method
of `preset=official`, of which sizes alone are made small.
"""

import torch

from labkit import methods
from labkit.flows.steps import Permute


def official(name, shapes, **sizes):
    """The method of `preset=official` at the paper budget, but for these sizes; float64."""
    overrides = {"preset": "official", **sizes}
    spec = methods.resolve(name, "mvtec_ad/bottle", "paper", 0, overrides)
    return methods.get(name)(spec.flow, shapes).double().eval()


def drawn(shapes, seed=0, spread=0.3):
    """A state dict of these names and shapes, float64, N(0, spread^2)."""
    random = torch.Generator().manual_seed(seed)
    sizes = shapes.items()
    return {
        name: spread * torch.randn(size, generator=random, dtype=torch.float64)
        for name, size in sizes
    }


def all_in_one_state(channels, subnets, dims=2, soft=False, seed=0):
    """Weights of FrEIA's AllInOneBlocks `module_list.k`, one for each subnet's names and shapes.

    `w_perm` is a permutation, or a rotation (`permute_soft`); channel scales are about 1.
    """
    random, one = torch.Generator().manual_seed(seed), (1,) * dims
    state = {}
    for k, subnet in enumerate(subnets):
        at = f"module_list.{k}."
        shapes = {f"{at}global_{what}": (1, channels, *one) for what in ("scale", "offset")}
        shapes |= {f"{at}subnet.{name}": size for name, size in subnet.items()}
        state |= drawn(shapes, seed=100 * seed + k)
        state[f"{at}global_scale"] += 10
        mixing = torch.eye(channels, dtype=torch.float64)
        mixing = mixing[torch.randperm(channels, generator=random)]
        if soft:
            square = torch.randn(channels, channels, generator=random, dtype=torch.float64)
            mixing = torch.linalg.qr(square).Q
        state[f"{at}w_perm"] = mixing.reshape(channels, channels, *one)
    return state


def all_in_one(state, k, x, subnet, cond=None, clamp=2.0):
    """z and the log-det at each position of block k of FrEIA 0.2 (alpha tanh, not clamped again).

    [r, t] = subnet([a, cond]) / 10,   b' = b exp(clamp tanh r) + t,   a is the longer half
    z = W ([a, b'] softplus(g) / 10 + o),   softplus of beta 1/2
    """
    at, ones = f"module_list.{k}.", [1] * (x.ndim - 2)
    half = (x.shape[1] + 1) // 2
    a, b = x[:, :half], x[:, half:]
    r, t = (subnet(a if cond is None else torch.cat([a, cond], 1)) / 10).chunk(2, 1)
    s = clamp * torch.tanh(r)
    raw, offset = (state[f"{at}global_{w}"].reshape(1, -1, *ones) for w in ("scale", "offset"))
    scale = 2 * torch.log1p(torch.exp(raw / 2)) / 10
    y = torch.cat([a, b * s.exp() + t], 1) * scale + offset
    mixing = state[f"{at}w_perm"].flatten(1)
    return torch.einsum("ij,bj...->bi...", mixing, y), s.sum(1) + scale.log().sum()


def carry_all_in_one(state, flow, names=None):
    """The blocks' weights into our steps: coupling, channel scale, mixing, ...

    Args: names: of a subnet's parameters, theirs by ours; None where they are the same.
    """
    triples = zip(flow.steps[::3], flow.steps[1::3], flow.steps[2::3], strict=True)
    for k, (coupling, affine, mix) in enumerate(triples):
        at = f"module_list.{k}."
        theirs = {own: (names or {}).get(own, own) for own in coupling.subnet.state_dict()}
        weights = {own: state[f"{at}subnet.{their}"] for own, their in theirs.items()}
        coupling.subnet.load_state_dict(weights)
        affine.raw_scale.data = state[f"{at}global_scale"].flatten()
        affine.offset.data = state[f"{at}global_offset"].flatten()
        mixing = state[f"{at}w_perm"].flatten(1)
        if isinstance(mix, Permute):
            set_order(mix, mixing.argmax(1))
        else:
            mix.q = mixing


def set_order(permute, order):
    """z_c = x_order(c) from now on."""
    permute.order, permute.back = order, order.argsort()


def enlarged(maps, size, corners):
    """(B, h, w) -> (B, H, W), bilinear by its formula; with or without aligned corners."""

    def weights(small, large):
        at = torch.arange(large, dtype=torch.float64)
        at = at * (small - 1) / (large - 1) if corners else (at + 0.5) * small / large - 0.5
        at = at.clamp(0, small - 1)
        return (1 - (at[:, None] - torch.arange(small)).abs()).clamp_min(0)

    rows, columns = (weights(*pair) for pair in zip(maps.shape[1:], size, strict=True))
    return rows @ maps @ columns.T


def assert_same(value, expected, rtol=1e-9):
    """Equal to this share of the largest value; shapes and types alike."""
    atol = rtol * expected.abs().max().item()
    torch.testing.assert_close(value, expected, rtol=0, atol=atol)
