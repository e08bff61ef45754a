"""What the tests of parity share: weights in the official modules' names, and their formulas.

Each test draws a state dict of the official repository's names and shapes, computes z, log-det,
map and score from it by the formulas in the sources named there, and carries it into the method
of `preset=official`, of which sizes alone are made small.
"""

import math
from functools import partial

import torch
from torch.nn import functional as F

from labkit import methods
from labkit.core.records import Features
from labkit.flows.steps import Permute


def official(name, shapes, **sizes):
    """The method of `preset=official` at the paper budget, but for these sizes; float64."""
    overrides = {"preset": "official", **sizes}
    spec = methods.resolve(name, "mvtec_ad/bottle", "paper", 0, overrides)
    return methods.get(name)(spec.flow, shapes).double().eval()


def random_weights(shapes, seed=0, at="", spread=0.3):
    """A state dict of these names and shapes below a module, float64, N(0, spread^2)."""
    random = torch.Generator().manual_seed(seed)
    return {
        at + name: spread * torch.randn(size, generator=random, dtype=torch.float64)
        for name, size in shapes.items()
    }


def all_in_one_state(channels, subnets, dims=2, soft=False, seed=0, root=""):
    """Weights of FrEIA's AllInOneBlocks `module_list.k`, one for each subnet's names and shapes.

    `w_perm` is a permutation, or a rotation (`permute_soft`); channel scales are about 1.
    """
    random, one = torch.Generator().manual_seed(seed), (1,) * dims
    state = {}
    for k, subnet in enumerate(subnets):
        at = f"{root}module_list.{k}."
        shapes = {f"global_{what}": (1, channels, *one) for what in ("scale", "offset")}
        shapes |= {f"subnet.{name}": size for name, size in subnet.items()}
        state |= random_weights(shapes, 100 * seed + k, at)
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
    w, ones, half = under(state, f"module_list.{k}."), [1] * (x.ndim - 2), (x.shape[1] + 1) // 2
    a, b = x[:, :half], x[:, half:]
    r, t = (subnet(a if cond is None else torch.cat([a, cond], 1)) / 10).chunk(2, 1)
    s = clamp * torch.tanh(r)
    raw, offset = (w[f"global_{what}"].reshape(1, -1, *ones) for what in ("scale", "offset"))
    scale = 2 * torch.log1p(torch.exp(raw / 2)) / 10
    y = torch.cat([a, b * s.exp() + t], 1) * scale + offset
    z = torch.einsum("ij,bj...->bi...", w["w_perm"].flatten(1), y)
    return z, s.sum(1) + scale.log().sum()


def all_in_ones(state, x, subnet, cond=None, clamp=2.0):
    """A chain of them; `subnet` is given its own weights by name beside what it sees."""
    jac = 0
    for k in range(sum(name.endswith("w_perm") for name in state)):
        own = partial(subnet, under(state, f"module_list.{k}.subnet."))
        x, more = all_in_one(state, k, x, own, cond, clamp)
        jac = jac + more
    return x, jac


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


def two_layer_shapes(c_in, wide, c_out, *kernel):
    """Of Linear, ReLU, Linear, or of convolutions with these kernel sides."""
    return {"0.weight": (wide, c_in, *kernel), "0.bias": (wide,)} | {
        "2.weight": (c_out, wide, *kernel), "2.bias": (c_out,)
    }  # fmt: skip


def two_linear(w, x):
    """Linear, ReLU, linear."""
    return F.linear(F.linear(x, w["0.weight"], w["0.bias"]).relu(), w["2.weight"], w["2.bias"])


def swapped_halves(order, back):
    """The shuffle of a step that transforms its second half first, and the latent's order then.

    Its halves are theirs exchanged: `back` is the order of our channels that is theirs so far.
    """
    swap = torch.arange(len(order)).roll(-(len(order) // 2))
    return back[order][swap], swap.argsort()


def fastflow_state(levels, subnets):
    """`norms.k` and `nf_flows.k` of FastFlow's and DADF's levels (C, h, w), by C's subnets."""
    state = {}
    for k, level in enumerate(levels):
        norm = random_weights(dict.fromkeys(("weight", "bias"), level), k, f"norms.{k}.")
        norm[f"norms.{k}.weight"] += 1
        root = f"nf_flows.{k}."
        state |= norm | all_in_one_state(level[0], subnets(level[0]), seed=k, root=root)
    return state


def carry_fastflow(state, method):
    """Those weights into our levels."""
    for k, level in enumerate(method.levels):
        level.norm.load_state_dict(under(state, f"norms.{k}."))
        carry_all_in_one(under(state, f"nf_flows.{k}."), level.flow)


def normed(w, at, x, dims=-1):
    """LayerNorm: (x - mean) / sqrt(variance + 1e-5), then a gain and an offset."""
    variance, mean = torch.var_mean(x, dims, correction=0, keepdim=True)
    return (x - mean) / (variance + 1e-5).sqrt() * w[f"{at}.weight"] + w[f"{at}.bias"]


def assert_fastflow(method, features, state, inputs, subnet):
    """z, log-det and loss of each level are the formulas'; 1/2 mean z^2 of each, (B, h, w)."""
    outs, losses = method.coupled(method.gathered(features)), method.loss(features)
    energies = []
    for k, (out, x) in enumerate(zip(outs, inputs, strict=True)):
        x = normed(state, f"norms.{k}", x, (1, 2, 3))
        z, jac = all_in_ones(under(state, f"nf_flows.{k}."), x, subnet)
        assert_same(out.z, z)
        assert_same(out.logdet, jac)
        loss = (z.square().sum((1, 2, 3)) / 2 - jac.sum((1, 2))).mean()
        constant = math.log(2 * math.pi) / 2 * z[0].numel()  # theirs leaves it out
        assert_same(losses[f"scale{k + 1}"] - constant, loss)
        energies.append(z.square().mean(1) / 2)
    return energies


def pyramid(shapes, n=3, seed=9):
    """Features of n images."""
    random = torch.Generator().manual_seed(seed)
    draw = partial(torch.randn, generator=random, dtype=torch.float64)
    return Features(tuple(draw(n, *size) for size in shapes.pyramid))


def under(state, at):
    """The part of a state dict below a module."""
    return {name[len(at) :]: value for name, value in state.items() if name.startswith(at)}


def position_code(channels, h, w):
    """(channels, h, w): sin, cos in turn, first of the column, then of the row; float32 there."""
    half = channels // 2
    rates = torch.exp(torch.arange(0.0, half, 2) * -(math.log(1e4) / half))
    row, column = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
    waves = [f(r * at) for at in (column, row) for r in rates for f in (torch.sin, torch.cos)]
    return torch.stack(waves).double()


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
