"""CS-Flow's `preset=official` against the formulas of its authors' code, with its weights' names.

Read: github.com/marco-rudolph/cs-flow at 88a13b8 (model.py, freia_funcs.py, utils.py, train.py,
evaluate.py).
"""

import numpy as np
import parity
import torch
from parity import assert_same, under
from torch.nn import functional as F

from labkit.core.records import Features, Shapes

C, BLOCKS, INNER = 6, 2, 5
SHAPES = Shapes((32, 48), ((C, 8, 12), (C, 4, 6), (C, 2, 3)))
LAYERS = {f"enter.{k}": f"conv_scale{k}_0" for k in range(3)}
LAYERS |= {f"own.{k}": f"conv_scale{k}_1" for k in range(3)}
LAYERS |= {"up.0": "up_conv10", "up.1": "up_conv21"}
LAYERS |= {"down.0": "down_conv01", "down.1": "down_conv12"}
HALF = {0: "s2", 1: "s1"}  # which subnet transforms a half; the first half is first


def subnet_state(side, seed, at):
    half, shapes = C // 2, {f"gamma{k}": (1,) for k in range(3)}
    for own, name in LAYERS.items():
        size = (INNER, half) if own.startswith("enter") else (2 * half, INNER)
        shapes |= {f"{name}.weight": (*size, side, side), f"{name}.bias": size[:1]}
    return parity.random_weights(shapes, seed, at)


def subnet(w, maps):
    """gamma_k (conv h_k + conv of h_k+1 enlarged twice + conv of stride 2 of h_k-1)."""

    def conv(name, x, stride=1):
        weight = w[f"{name}.weight"]
        return F.conv2d(x, weight, w[f"{name}.bias"], stride, weight.shape[2] // 2)

    def twice(x):
        size = [2 * side for side in x.shape[2:]]
        return parity.enlarged(x.flatten(0, 1), size, corners=False).unflatten(0, x.shape[:2])

    inner = [F.leaky_relu(conv(f"conv_scale{k}_0", x), 0.1) for k, x in enumerate(maps)]
    fine, middle, coarse = (conv(f"conv_scale{k}_1", x) for k, x in enumerate(inner))
    fine = fine + conv("up_conv10", twice(inner[1]))
    middle = middle + conv("up_conv21", twice(inner[2])) + conv("down_conv01", inner[0], 2)
    coarse = coarse + conv("down_conv12", inner[1], 2)
    return [w[f"gamma{k}"] * x for k, x in enumerate((fine, middle, coarse))]


def flow(state, orders, maps):
    """x1' = x1 e(s2(x2)) + t2, x2' = x2 e(s1(x1')) + t1, all maps at once; shuffled before."""
    jac = [0, 0, 0]
    for k, shuffles in enumerate(orders):
        halves = [x[:, order].chunk(2, 1) for x, order in zip(maps, shuffles, strict=True)]
        for own, name in HALF.items():
            w = under(state, f"module_list.{2 * k + 4}.{name}.")
            outs = subnet(w, [pair[1 - own] for pair in halves])
            for m, (pair, out) in enumerate(zip(halves, outs, strict=True)):
                s, t = out.chunk(2, 1)
                s = 3 * 0.636 * torch.atan(s / 3)
                moved, jac[m] = pair[own] * s.exp() + t, jac[m] + s.sum(1)
                halves[m] = [(moved, pair[1]), (pair[0], moved)][own]
        maps = [torch.cat(pair, 1) for pair in halves]
    return maps, jac


def carried(state, orders):
    """The method with their weights, and the order of its latents' channels that is theirs."""
    method = parity.official("csflow", SHAPES, blocks=BLOCKS, hidden=INNER)
    start, steps = torch.arange(C), method.flow.steps
    for k, (shuffle, coupling) in enumerate(zip(steps[::2], steps[1::2], strict=True)):
        for permute, order in zip(shuffle.parts, orders[k], strict=True):
            ours, back = parity.swapped_halves(order, start)
            parity.set_order(permute, ours)
        start = back
        for net, name in ((coupling.subnet, "s2"), (coupling.subnet2, "s1")):
            w = under(state, f"module_list.{2 * k + 4}.{name}.")
            pairs = [name.rpartition(".") for name in net.state_dict() if name != "gamma"]
            theirs = {f"{own}.{part}": w[f"{LAYERS[own]}.{part}"] for own, _, part in pairs}
            theirs["gamma"] = torch.cat([w[f"gamma{m}"] for m in range(3)])
            net.load_state_dict(theirs)
    return method, back


def test_the_official_preset_is_the_authors_code():
    state, orders = {}, []
    for k, side in enumerate((3, 5)):
        for seed, name in enumerate(HALF.values()):
            state |= subnet_state(side, 10 * k + seed, f"module_list.{2 * k + 4}.{name}.")
        random = np.random.RandomState(k)
        orders.append([torch.from_numpy(random.permutation(C)) for _ in range(3)])
    method, back = carried(state, orders)
    sizes = {str(level): (3, *level) for level in SHAPES.pyramid}
    features = Features(tuple(parity.random_weights(sizes, seed=9, spread=1.0).values()))
    latents, jac = flow(state, orders, features.pyramid)
    outs = method.latents(features)
    for k, (z, own) in enumerate(zip(latents, jac, strict=True), start=1):
        assert_same(outs[f"scale{k}"].z[:, back], z)
        assert_same(outs[f"scale{k}"].logdet, own)
    row = torch.cat([z.flatten(1) for z in latents], 1)
    total = sum(own.sum((1, 2)) for own in jac)
    loss = (row.square().sum(1) / 2 - total).mean() / row.shape[1]
    assert_same(method.loss(features)["nll"], loss)
    maps = method.maps(features)
    assert_same(method.score(maps), row.square().mean(1) / 2)
    theirs = parity.enlarged(latents[0].square().mean(1), SHAPES.image, corners=False)
    assert_same(2 * maps.anomaly, theirs)
