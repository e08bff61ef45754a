"""DNFAD's `preset=official` against the formulas of the authors' code, with their weights' names.

Read: github.com/SYLan2019/DNFAD at 696df85 (model.py, freia_funcs_conv.py, postprocess.py,
train.py, config.py), and FrEIA 0.2 for its AllInOneBlock.
"""

import numpy as np
import parity
import pytest
import torch
from torch.nn import functional as F

from labkit.core.records import Shapes

BLOCKS, COND, PAIR = 2, 4, ("weight", "bias")


def names(norm):
    """Of a subnet's parameters, theirs by ours; the branches' norms have other names."""
    modules = {f"0.dynamic.attend.{k}": f"attention.idconv.proj.{k}" for k in (0, 1)}
    modules |= {"1": "conv1", "2": norm, "4": "conv2"}
    pairs = {f"{own}.{w}": f"{their}.{w}" for own, their in modules.items() for w in PAIR}
    dynamic = {"kernels": "weight", "biases": "bias"}
    pairs |= {f"0.dynamic.{own}": f"attention.idconv.{w}" for own, w in dynamic.items()}
    return pairs | {"0.mix.weight": "attention.conv1.weight", "6.gamma": "gamma"}


def subnet_shapes(c_in, c_out, norm):
    sizes = [(1, 2, 1, 1), (1,), (16, 1, 1, 1), (16,), (c_in, c_in, 3, 3), (c_in,), (c_in,)]
    sizes += [(c_in,), (c_out, c_in, 3, 3), (c_out,), (8, 2, 3, 3), (8, 2), (1, 2, 3, 3), (1,)]
    return dict(zip(names(norm).values(), sizes, strict=True))


def subnet(w, x, norm, local):
    """x + m sigmoid(m), conv, LayerNorm over channels, ReLU, conv; locally ReLU and gamma."""

    def mixed(v):
        for k in (0, 1):
            v = F.conv2d(v, *(w[f"attention.idconv.proj.{k}.{name}"] for name in PAIR))
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
    norms = [w[f"{norm}.{name}"] for name in PAIR]
    x = F.layer_norm(x.movedim(1, -1), x.shape[1:2], *norms).movedim(-1, 1)
    x = F.conv2d(F.pad(x.relu(), [1] * 4, mode), w["conv2.weight"], w["conv2.bias"])
    return x.relu() * w["gamma"] if local else x


def local_flow(state, orders, x, code):
    """Shuffled; x1' = x1 e(s2(x2)) + t2, then x2' = x2 e(s1(x1')) + t1; e clamps by arctan."""
    jac = 0
    for k, order in enumerate(orders):
        halves = list(x[:, order].tensor_split([x.shape[1] // 2], 1))
        for own, name in ((0, "s2"), (1, "s1")):
            w = parity.under(state, f"patch_flow.module_list.{3 + 2 * k}.{name}.")
            s, t = subnet(w, torch.cat([halves[1 - own], code], 1), "norm", True).chunk(2, 1)
            s = 2 * 0.636 * torch.atan(s / 2)
            halves[own] = halves[own] * s.exp() + t
            jac = jac + s.sum(1)
        x = torch.cat(halves, 1)
    return x, jac


def postprocessed(energy, size):
    """A branch's score and map: log P and P enlarged, each against its own highest value."""
    log = parity.enlarged(-energy, size, corners=True)
    apart = 1 - (log - log.amax((1, 2), True)).exp()
    p = parity.enlarged((energy.amin((1, 2), True) - energy).exp(), size, corners=True)
    count = int(size[0] * size[1] * 0.03)
    return apart.flatten(1).sort().values[:, -count:].mean(1), p.amax((1, 2), True) - p


def weights(channels):
    """The map flow's blocks, and the patch flow's behind two inputs and a permutation each."""
    short, long = channels // 2, channels - channels // 2
    wide = subnet_shapes(long + COND, 2 * short, "ln")
    state = parity.all_in_one_state(channels, [wide] * BLOCKS, root="map_flow.")
    for k in range(BLOCKS):
        for seed, (name, a, b) in enumerate((("s1", short, long), ("s2", long, short))):
            at = f"patch_flow.module_list.{3 + 2 * k}.{name}."
            state |= parity.random_weights(
                subnet_shapes(a + COND, 2 * b, "norm"), 10 * k + seed, at
            )
            state[f"{at}gamma"] += 1
    return state


def carried(state, orders, method):
    """The weights in a method; the order that its local latent has theirs in."""
    below = parity.under(state, "map_flow.")
    parity.carry_all_in_one(below, method.branches["global"], names("ln"))
    back, steps = torch.arange(len(orders[0])), method.branches["local"].steps
    for k, (permute, coupling) in enumerate(zip(steps[::2], steps[1::2], strict=True)):
        order, back = parity.swapped_halves(orders[k], back)
        parity.set_order(permute, order)
        for net, name in ((coupling.subnet, "s2"), (coupling.subnet2, "s1")):
            w = parity.under(state, f"patch_flow.module_list.{3 + 2 * k}.{name}.")
            net.load_state_dict({own: w[names("norm")[own]] for own in net.state_dict()})
    return back


@pytest.mark.parametrize("channels", [6, 7])
def test_the_official_preset_is_the_authors_code(channels):
    shapes, state = Shapes((24, 40), ((channels, 3, 5),)), weights(channels)
    orders = [np.random.RandomState(k).permutation(channels) for k in range(BLOCKS)]
    method = parity.official("dnfad", shapes, blocks=BLOCKS, position=COND)
    back = carried(state, orders, method)
    features = parity.pyramid(shapes)
    (x,) = features.pyramid
    code = parity.position_code(COND, 3, 5).expand(3, -1, -1, -1)
    flow = parity.under(state, "map_flow."), x, lambda w, v: subnet(w, v, "ln", False), code
    expected = {"global": parity.all_in_ones(*flow), "local": local_flow(state, orders, x, code)}
    outs, losses, scores, located = method.run(features), method.loss(features), 0, 0
    for name, (z, jac) in expected.items():
        parity.assert_same(outs[name].z[:, back] if name == "local" else outs[name].z, z)
        parity.assert_same(outs[name].logdet, jac)
        loss = (z.square().sum(1) / 2 - jac).mean()
        parity.assert_same(losses[name], loss if name == "local" else loss * jac[0].numel())
        score, at = postprocessed(z.square().mean(1) / 2, shapes.image)
        scores, located = scores + score, located + at
    maps = method.maps(features)
    parity.assert_same(maps.anomaly, located)
    parity.assert_same(method.score(maps), scores)
