"""SANF's `preset=official` against the formulas of its authors' code, with its weights' names.

Read: github.com/SYLan2019/SANF-AD at df8f265 (model.py, subnet.py, freia_funcs.py, utils.py,
train.py, evaluate.py).
"""

import math

import numpy as np
import parity
import torch
from parity import assert_same, under
from torch.nn import functional as F

from labkit.core.records import Features, Shapes

D, BLOCKS, HEADS, SIDE = 16, 3, 4, 6  # 6 x 6 patch tokens, pooled to 2 x 2
SHAPES = Shapes((96, 96), token=D, patches=(SIDE**2, D))
LAYERS = {"mlp.0": "fc1", "mlp.2": "fc2", "mlp.4": "fc2b", "last": "fc3"}
LAYERS |= {f"attention.{name}": f"attention.{name}" for name in "qkv"}
LAYERS |= {"attention.out": "attention.proj"}
HALF = {0: "s2", 1: "s1"}  # which subnet transforms a half; the first half is first


def subnet_shapes():
    """Of a subnet as wide as the token; its batch norm is never called."""
    half = D // 2
    shapes = {"fc1": (D, half), "fc2": (D, D), "fc2b": (D, D), "fc3": (D, 2 * D)}
    shapes |= {"attention.proj": (D, half)}
    sizes = {f"{name}.weight": size for name, size in shapes.items()}
    sizes |= {f"{name}.bias": size[:1] for name, size in shapes.items()}
    return sizes | {f"attention.{name}.weight": (half, half) for name in "qkv"} | {"gamma": (D,)}


def subnet(w, x, tokens):
    """FC([MLP(x), gamma * attention of x over x and the tokens])."""

    def linear(name, v):
        return F.linear(v, w[f"{name}.weight"], w.get(f"{name}.bias"))

    out = linear("fc2b", linear("fc2", linear("fc1", x).relu()).relu()).relu()
    rows = torch.cat([x[:, None], tokens], 1)
    q = linear("attention.q", x).unflatten(1, (HEADS, -1))
    k, v = (linear(f"attention.{name}", rows).unflatten(2, (HEADS, -1)) for name in "kv")
    weights = torch.einsum("bhc,bnhc->bhn", q, k / math.sqrt(k.shape[-1])).softmax(2)
    attended = linear("attention.proj", torch.einsum("bhn,bnhc->bhc", weights, v).flatten(1))
    return linear("fc3", torch.cat([out, attended * w["gamma"]], 1))


def pooled(patches):
    """(B, N, C) taken for (B, C, h, w) as it lies in memory, 3 x 3 means; (B, N / 9, C)."""
    maps = patches.reshape(len(patches), D, SIDE, SIDE)
    return F.avg_pool2d(maps, 3).flatten(2).transpose(1, 2)


def flow(state, orders, token, tokens):
    """x1' = x1 e(s2(x2)) + t2, x2' = x2 e(s1(x1')) + t1; shuffled before, tokens alike."""
    jac = 0
    for k, order in enumerate(orders):
        token, tokens = token[:, order], tokens[:, :, order]
        halves, parts = list(token.chunk(2, 1)), tokens.chunk(2, 2)
        for own, name in HALF.items():
            w = under(state, f"module_list.{2 * k + 2}.{name}.")
            s, t = subnet(w, halves[1 - own], parts[1 - own]).chunk(2, 1)
            s = 3 * 0.636 * torch.atan(s / 3)
            halves[own], jac = halves[own] * s.exp() + t, jac + s.sum(1)
        token = torch.cat(halves, 1)
    return token, jac


def carried(state, orders):
    """The method with their weights, and the order of its latent's channels that is theirs."""
    method = parity.official("sanf", SHAPES, blocks=BLOCKS)
    back, followed, steps = torch.arange(D), torch.arange(D), method.couplings.steps
    for k, (permute, coupling) in enumerate(zip(steps[::2], steps[1::2], strict=True)):
        order, back = parity.swapped_halves(orders[k], back)
        parity.set_order(permute, order)
        followed = followed[permute.order]
        coupling.order.copy_(followed)
        for net, name in ((coupling.subnet, "s2"), (coupling.subnet2, "s1")):
            w = under(state, f"module_list.{2 * k + 2}.{name}.")
            pairs = (name.rpartition(".") for name in net.state_dict())
            net.load_state_dict(
                {
                    f"{own}{dot}{part}": w[f"{LAYERS.get(own, own)}{dot}{part}"]
                    for own, dot, part in pairs
                }
            )
    return method, back


def test_the_official_preset_is_the_authors_code():
    state = {}
    for k in range(BLOCKS):
        for seed, name in enumerate(HALF.values()):
            at = f"module_list.{2 * k + 2}.{name}."
            state |= parity.random_weights(subnet_shapes(), 10 * k + seed, at)
    orders = [torch.from_numpy(np.random.RandomState(k).permutation(D)) for k in range(BLOCKS)]
    method, back = carried(state, orders)
    sizes = {"token": (3, D), "patches": (3, SIDE**2, D)}
    features = Features(**parity.random_weights(sizes, seed=9, spread=1.0))
    z, jac = flow(state, orders, features.token, pooled(features.patches))
    out = method.run(features)["y_sem"]
    assert_same(out.z[:, back], z)
    assert_same(out.logdet, jac)
    loss = (z.square().sum(1) / 2 - jac).mean() / D
    assert_same(method.loss(features)["nll"], loss)
    score = method.score(method.maps(features))
    constant = math.log(2 * math.pi) / 2
    assert_same(score, z.square().mean(1) / 2 + constant)  # evaluate.py; train.py ranks alike
    assert method.maps(features).main is None
