"""DNFAD's `preset=official` against the formulas of the authors' code, with their weights' names.

Read: github.com/SYLan2019/DNFAD at 696df85 (model.py, freia_funcs_conv.py, postprocess.py,
train.py, config.py), and FrEIA 0.2 for its AllInOneBlock.
"""

import math

import pytest
import torch
from parity import (
    all_in_one,
    all_in_one_state,
    assert_same,
    carry_all_in_one,
    drawn,
    enlarged,
    official,
    set_order,
)
from torch.nn import functional as F

from labkit.core.records import Features, Shapes

BLOCKS, COND = 2, 4
NAMES = {  # of a subnet's parameters: theirs by ours
    "0.dynamic.kernels": "attention.idconv.weight",
    "0.dynamic.biases": "attention.idconv.bias",
    "0.dynamic.attend.0.weight": "attention.idconv.proj.0.weight",
    "0.dynamic.attend.0.bias": "attention.idconv.proj.0.bias",
    "0.dynamic.attend.1.weight": "attention.idconv.proj.1.weight",
    "0.dynamic.attend.1.bias": "attention.idconv.proj.1.bias",
    "0.mix.weight": "attention.conv1.weight",
    "1.weight": "conv1.weight",
    "1.bias": "conv1.bias",
    "2.weight": "{norm}.weight",
    "2.bias": "{norm}.bias",
    "4.weight": "conv2.weight",
    "4.bias": "conv2.bias",
    "6.gamma": "gamma",
}


def names(norm):
    return {own: their.format(norm=norm) for own, their in NAMES.items()}


def subnet_shapes(c_in, c_out, norm):
    sizes = [(8, 2, 3, 3), (8, 2), (1, 2, 1, 1), (1,), (16, 1, 1, 1), (16,), (1, 2, 3, 3)]
    sizes += [(c_in, c_in, 3, 3), (c_in,), (c_in,), (c_in,), (c_out, c_in, 3, 3), (c_out,), (1,)]
    return dict(zip(names(norm).values(), sizes, strict=True))


def subnet(w, x, norm, local):
    """x + m sigmoid(m), conv, LayerNorm over channels, ReLU, conv; locally ReLU and gamma."""

    def mixed(v):
        v = F.conv2d(v, w["attention.idconv.proj.0.weight"], w["attention.idconv.proj.0.bias"])
        v = F.conv2d(v, w["attention.idconv.proj.1.weight"], w["attention.idconv.proj.1.bias"])
        return v.unflatten(1, (8, 2)).softmax(1)

    two = torch.stack([x.mean(1), x.amax(1)], 1)
    kernels = (mixed(F.adaptive_avg_pool2d(two, 3)) * w["attention.idconv.weight"]).sum(1)
    biases = (mixed(two.mean((2, 3), True))[..., 0, 0] * w["attention.idconv.bias"]).sum(1)
    pairs = zip(two, kernels, biases, strict=True)
    moved = [F.conv2d(v[None], k[:, None], b, padding=1, groups=2) for v, k, b in pairs]
    m = F.conv2d(torch.cat(moved), w["attention.conv1.weight"], padding=1)
    x = x + m / (1 + torch.exp(-m))
    mode = "replicate" if local else "constant"
    x = F.conv2d(F.pad(x, [1] * 4, mode), w["conv1.weight"], w["conv1.bias"])
    x = (x - x.mean(1, True)) / (x.var(1, correction=0, keepdim=True) + 1e-5).sqrt()
    x = x * w[f"{norm}.weight"][:, None, None] + w[f"{norm}.bias"][:, None, None]
    x = F.conv2d(F.pad(x.relu(), [1] * 4, mode), w["conv2.weight"], w["conv2.bias"])
    return x.relu() * w["gamma"] if local else x


def under(state, at):
    return {name[len(at) :]: value for name, value in state.items() if name.startswith(at)}


def local_flow(state, orders, x, code):
    """Shuffled; x1' = x1 e(s2(x2)) + t2, then x2' = x2 e(s1(x1')) + t1; e clamps by arctan."""
    jac = 0
    for k, order in enumerate(orders):
        halves = x[:, order].tensor_split([x.shape[1] // 2], 1)
        for own, name in ((0, "s2"), (1, "s1")):
            given = torch.cat([halves[1 - own], code], 1)
            w = under(state, f"patch_flow.module_list.{3 + 2 * k}.{name}.")
            s, t = subnet(w, given, "norm", True).chunk(2, 1)
            s = 2 * 0.636 * torch.atan(s / 2)
            halves = [*halves]
            halves[own] = halves[own] * s.exp() + t
            jac = jac + s.sum(1)
        x = torch.cat(halves, 1)
    return x, jac


def global_flow(state, x, code):
    jac, state = 0, under(state, "map_flow.")
    for k in range(BLOCKS):
        w = under(state, f"module_list.{k}.subnet.")
        x, more = all_in_one(state, k, x, lambda v, w=w: subnet(w, v, "ln", False), code)
        jac = jac + more
    return x, jac


def postprocessed(energy, size):
    """A branch's score and map: log P and P enlarged, each against its own highest value."""
    top = lambda v: v.amax((1, 2), keepdim=True)  # noqa: E731
    log = enlarged(-energy, size, corners=True)
    apart = 1 - (log - top(log)).exp()
    count = int(size[0] * size[1] * 0.03)
    p = enlarged((-energy - top(-energy)).exp(), size, corners=True)
    return apart.flatten(1).sort().values[:, -count:].mean(1), top(p) - p


def code_of(h, w):
    """sin, cos in turn; the first half of the column, the second of the row; float32 there."""
    rate = torch.exp(torch.arange(0.0, COND / 2, 2) * -(math.log(1e4) / (COND / 2)))
    row, column = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
    waves = [f(r * at) for at in (column, row) for r in rate for f in (torch.sin, torch.cos)]
    return torch.stack(waves).double()


@pytest.mark.parametrize("channels", [6, 7])
def test_the_official_preset_is_the_authors_code(channels):
    shapes = Shapes((24, 40), ((channels, 3, 5),))
    short, long = channels // 2, channels - channels // 2
    wide = subnet_shapes(long + COND, 2 * short, "ln")
    wide.pop("gamma")
    state = {f"map_flow.{k}": v for k, v in all_in_one_state(channels, [wide] * BLOCKS).items()}
    for k in range(BLOCKS):
        for seed, (name, a, b) in enumerate((("s1", short, long), ("s2", long, short))):
            at = f"patch_flow.module_list.{3 + 2 * k}.{name}."
            sizes = subnet_shapes(a + COND, 2 * b, "norm")
            state |= drawn({at + own: size for own, size in sizes.items()}, 10 * k + seed + 1)
            state[f"{at}gamma"] += 1
    orders = [torch.randperm(channels, generator=torch.Generator().manual_seed(k)) for k in (1, 2)]

    method = official("dnfad", shapes, blocks=BLOCKS, position=COND)
    carry_all_in_one(under(state, "map_flow."), method.branches["global"], names("ln"))
    swap = torch.arange(channels).roll(-short)  # ours transforms its second half first
    back, steps = torch.arange(channels), method.branches["local"].steps
    for k, (permute, coupling) in enumerate(zip(steps[::2], steps[1::2], strict=True)):
        set_order(permute, back[orders[k]][swap])
        back = swap.argsort()
        for net, name in ((coupling.subnet, "s2"), (coupling.subnet2, "s1")):
            w = under(state, f"patch_flow.module_list.{3 + 2 * k}.{name}.")
            net.load_state_dict({own: w[names("norm")[own]] for own in net.state_dict()})

    x = torch.randn(3, channels, 3, 5, generator=torch.Generator().manual_seed(9)).double()
    code = code_of(3, 5).expand(3, -1, -1, -1)
    z1, jac1 = local_flow(state, orders, x, code)
    z2, jac2 = global_flow(state, x, code)
    features = Features((x,))
    outs = method.run(features)
    assert_same(outs["local"].z[:, back], z1)
    assert_same(outs["local"].logdet, jac1)
    assert_same(outs["global"].z, z2)
    assert_same(outs["global"].logdet.sum((1, 2)), jac2.sum((1, 2)))
    losses = method.loss(features)
    assert_same(losses["local"], (z1.square().sum(1) / 2 - jac1).mean())
    per_image = z2.square().sum((1, 2, 3)) / 2 - jac2.sum((1, 2))
    assert_same(losses["global"], per_image.mean())
    (score1, map1), (score2, map2) = (
        postprocessed(z.square().mean(1) / 2, shapes.image) for z in (z1, z2)
    )
    maps = method.maps(features)
    assert_same(maps.anomaly, map1 + map2)
    assert_same(method.score(maps), score1 + score2)
