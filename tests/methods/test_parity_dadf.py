"""DADF's `preset=official` against the formulas of the authors' code, with their weights' names.

Read: github.com/hmyao22/DADF at ebef0b6 (Models/ViT.py, Models/dual_attention.py, Models/utils.py,
fastflow.py, fuse_main.py), and FrEIA 0.2 for its AllInOneBlock.
"""

import math

import parity
import torch
from torch.nn import functional as F

from labkit.core.records import Shapes

SHAPES, SIDE = Shapes((24, 24), ((4, 12, 12), (3, 6, 6), (5, 3, 3))), 3
PATCHES, DEPTH, HEADS, D = (4, 2, 1), 2, 2, 4
WIDTH = 3 * D
LINEAR = {"attn.qkv": (3 * WIDTH, WIDTH), "attn.proj": (WIDTH, WIDTH)}
LINEAR |= {"mlp.fc1": (4 * WIDTH, WIDTH), "mlp.fc2": (WIDTH, 4 * WIDTH)}
OURS = {"before": "norm1", "after": "norm2", "attention.out": "attn.proj"}
OURS |= {"mlp.0": "mlp.fc1", "mlp.2": "mlp.fc2"}


def weights():
    layers = {f"blocks.{i}.{name}": size for i in range(DEPTH) for name, size in LINEAR.items()}
    norms = [f"blocks.{i}.norm{k}" for i in range(DEPTH) for k in (1, 2)]
    layers |= dict.fromkeys([*norms, "norm"], (WIDTH,))
    for k, ((c, *_), p) in enumerate(zip(SHAPES.pyramid, PATCHES, strict=True), start=1):
        layers |= {f"patch_embed{k}.proj": (D, c, p, p), f"decoder_pred{k}": (p * p * c, WIDTH)}
    sizes = {f"{name}.weight": size for name, size in layers.items()}
    sizes |= {f"{name}.bias": size[:1] for name, size in layers.items()}
    state = parity.random_weights(sizes | {"sem_token": (1, SIDE**2, WIDTH)}, 1, "reconstructor.")
    state["reconstructor.pos_embed"] = torch.cat([torch.zeros(1, WIDTH), sines()])[None].double()
    return state | parity.fastflow_state([(3 * c, h, w) for c, h, w in SHAPES.pyramid], subnets)


def subnets(channels):
    """A depthwise conv and one of kernel 1, on the longer half."""
    c_in, c_out = channels - channels // 2, 2 * (channels // 2)
    last = {"2.weight": (c_out, c_in, 1, 1), "2.bias": (c_out,)}
    return [{"0.weight": (c_in, 1, k, k), "0.bias": (c_in,)} | last for k in (3, 1, 3)]


def sines():
    """(L, W): sin of the column at all rates, cos of it, then the same of the row."""
    rates = 1e4 ** (-torch.arange(WIDTH // 4) / (WIDTH / 4))
    row, column = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
    waves = [f(at.reshape(-1, 1) * rates) for at in (column, row) for f in (torch.sin, torch.cos)]
    return torch.cat(waves, 1)


def linear(w, name, x):
    return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]


def attended(w, q, k, v):
    """softmax(q k^T / sqrt d) v by head, heads side by side, and the projection."""
    q, k, v = (x.unflatten(2, (HEADS, -1)).transpose(1, 2) for x in (q, k, v))
    mixed = (q @ k.mT / q.shape[-1] ** 0.5).softmax(-1) @ v
    return linear(w, "attn.proj", mixed.transpose(1, 2).flatten(2))


def rebuilt(w, levels):
    """phi_S and phi_M of each level: memory's queries meet the features' keys, its own values."""
    embed = [[w[f"patch_embed{k}.proj.{end}"] for end in ("weight", "bias")] for k in (1, 2, 3)]
    triples = zip(levels, embed, PATCHES, strict=True)
    f = torch.cat([F.conv2d(x, *layer, stride=p).flatten(2).mT for x, layer, p in triples], 2)
    f, m = (x + w["pos_embed"][:, 1:] for x in (f, w["sem_token"].expand_as(f)))
    for i in range(DEPTH):
        own = parity.under(w, f"blocks.{i}.")
        q1, k1, v1 = linear(own, "attn.qkv", parity.normed(own, "norm1", f)).chunk(3, -1)
        q2, _, v2 = linear(own, "attn.qkv", parity.normed(own, "norm1", m)).chunk(3, -1)
        both = f + attended(own, q1, k1, v1), m + attended(own, q2, k1, v2)
        inner = (F.gelu(linear(own, "mlp.fc1", parity.normed(own, "norm2", x))) for x in both)
        f, m = (x + linear(own, "mlp.fc2", y) for x, y in zip(both, inner, strict=True))

    def unpatched(x, k, p):
        x = linear(w, f"decoder_pred{k}", parity.normed(w, "norm", x)).unflatten(1, (SIDE, SIDE))
        return x.unflatten(3, (p, p, -1)).permute(0, 5, 1, 3, 2, 4).flatten(4).flatten(2, 3)

    return [[unpatched(x, k, p) for k, p in enumerate(PATCHES, start=1)] for x in (f, m)]


def carried(state, method):
    """The weights in a method: q, k, v apart, patches as rows, outputs by channel first."""
    net, w = method.transformer, parity.under(state, "reconstructor.")
    parity.assert_same(net.code, w["pos_embed"][:, 1:], rtol=1e-6)  # float32 in both
    net.code, own = w["pos_embed"][:, 1:], {"memory": w["sem_token"]}
    for end in ("weight", "bias"):
        own[f"heads.norm.{end}"] = w[f"norm.{end}"]
        for k, p in enumerate(PATCHES):
            own[f"embed.{k}.{end}"] = w[f"patch_embed{k + 1}.proj.{end}"].reshape(D, -1).squeeze()
            rows = w[f"decoder_pred{k + 1}.{end}"].unflatten(0, (p * p, -1))
            own[f"heads.levels.{k}.{end}"] = rows.transpose(0, 1).flatten(0, 1)
        for i in range(DEPTH):
            for ours, theirs in OURS.items():
                own[f"blocks.{i}.own.{ours}.{end}"] = w[f"blocks.{i}.{theirs}.{end}"]
            for name, part in zip("qkv", w[f"blocks.{i}.attn.qkv.{end}"].chunk(3), strict=True):
                own[f"blocks.{i}.own.attention.{name}.{end}"] = part
    net.load_state_dict(own)
    parity.carry_fastflow(state, method)


def subnet(w, x):
    """Depthwise conv, leaky ReLU, conv 1."""
    x = F.conv2d(x, w["0.weight"], w["0.bias"], padding="same", groups=x.shape[1])
    return F.conv2d(torch.where(x > 0, x, x / 10), w["2.weight"], w["2.bias"])


def test_the_official_preset_is_the_authors_code():
    method = parity.official("dadf", SHAPES, blocks=3, depth=DEPTH, heads=HEADS, embed=D)
    start = method.transformer.blocks[0].own.attention.q.weight.abs().max()
    assert 0.9 < start / math.sqrt(6 / (4 * WIDTH)) < 1  # of queries, keys and values in one layer
    state, features = weights(), parity.pyramid(SHAPES)
    carried(state, method)
    method.fit_score([features])
    levels = features.pyramid
    own, memory = rebuilt(parity.under(state, "reconstructor."), levels)
    losses, maps = method.loss(features), method.maps(features)
    for name, part in (("self", own), ("memory", memory)):
        apart = [(x - y).square() for x, y in zip(levels, part, strict=True)]
        parity.assert_same(losses[name], sum(x.mean() for x in apart))
        errors = sum(parity.enlarged(x.mean(1), SHAPES.image, corners=True) for x in apart)
        parity.assert_same(maps[f"{name}_error"].values, errors)
    joined = [torch.cat(parts, 1) for parts in zip(levels, own, memory, strict=True)]
    energies = parity.assert_fastflow(method, features, state, joined, subnet)
    large = (parity.enlarged((1 - e).exp(), SHAPES.image, corners=False) for e in energies)
    located = -sum(large) / len(energies)
    parity.assert_same((maps.anomaly - 1) * math.e, located)
    parity.assert_same((method.score(maps) - 1) * math.e, located.amax((1, 2)))
