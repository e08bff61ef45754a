"""DADF's `preset=official` against the formulas of the authors' code, with their weights' names.

Read: github.com/hmyao22/DADF at ebef0b6 (Models/ViT.py, Models/dual_attention.py, Models/utils.py,
fastflow.py, fuse_main.py), and FrEIA 0.2 for its AllInOneBlock.
"""

import math

import parity
import torch
from torch.nn import functional as F

from labkit.core.records import Features, Shapes

SHAPES, SIDE = Shapes((24, 24), ((4, 12, 12), (3, 6, 6), (5, 3, 3))), 3
PATCHES, BLOCKS, DEPTH, HEADS, D = (4, 2, 1), 3, 2, 2, 4
WIDTH = 3 * D
LINEAR = {"attn.qkv": (3 * WIDTH, WIDTH), "attn.proj": (WIDTH, WIDTH)}
LINEAR |= {"mlp.fc1": (4 * WIDTH, WIDTH), "mlp.fc2": (WIDTH, 4 * WIDTH)}
OURS = {"before": "norm1", "after": "norm2", "attention.out": "attn.proj"}
OURS |= {"mlp.0": "mlp.fc1", "mlp.2": "mlp.fc2"}


def weights():
    layers = {f"blocks.{i}.{name}": size for i in range(DEPTH) for name, size in LINEAR.items()}
    layers |= {f"blocks.{i}.norm{k}": (WIDTH,) for i in range(DEPTH) for k in (1, 2)}
    layers |= {"norm": (WIDTH,)}
    for k, ((c, *_), p) in enumerate(zip(SHAPES.pyramid, PATCHES, strict=True), start=1):
        layers |= {f"patch_embed{k}.proj": (D, c, p, p), f"decoder_pred{k}": (p * p * c, WIDTH)}
    sizes = {f"{name}.weight": size for name, size in layers.items()}
    sizes |= {f"{name}.bias": size[:1] for name, size in layers.items()}
    state = parity.drawn(sizes | {"sem_token": (1, SIDE**2, WIDTH)}, 1, "reconstructor.")
    state["reconstructor.pos_embed"] = torch.cat([torch.zeros(1, WIDTH), sines()])[None].double()
    for level, (c, *grid) in enumerate(SHAPES.pyramid):
        joined = dict.fromkeys(("weight", "bias"), (3 * c, *grid))
        state |= parity.drawn(joined, level, f"norms.{level}.")
        a, out, root = 3 * c - 3 * c // 2, 2 * (3 * c // 2), f"nf_flows.{level}."
        subnets = [
            {
                "0.weight": (a, 1, k, k),
                "0.bias": (a,),
                "2.weight": (out, a, 1, 1),
                "2.bias": (out,),
            }
            for k in (3, 1, 3)
        ]
        state |= parity.all_in_one_state(3 * c, subnets, seed=level, root=root)
    return state


def sines():
    """(L, W): sin of the column at all rates, cos of it, then the same of the row."""
    rates = 1e4 ** (-torch.arange(WIDTH // 4) / (WIDTH / 4))
    row, column = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
    return torch.cat([f(at.reshape(-1, 1) * rates) for at in (column, row)
                      for f in (torch.sin, torch.cos)], 1)  # fmt: skip


def normed(w, name, x, dims=(-1,)):
    variance, mean = torch.var_mean(x, dims, correction=0, keepdim=True)
    return (x - mean) / (variance + 1e-5).sqrt() * w[f"{name}.weight"] + w[f"{name}.bias"]


def linear(w, name, x):
    return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]


def attended(w, q, k, v):
    """softmax(q k^T / sqrt d) v by head, heads side by side, and the projection."""
    q, k, v = (x.unflatten(2, (HEADS, -1)).transpose(1, 2) for x in (q, k, v))
    mixed = (q @ k.mT / q.shape[-1] ** 0.5).softmax(-1) @ v
    return linear(w, "attn.proj", mixed.transpose(1, 2).flatten(2))


def rebuilt(w, levels):
    """phi_S and phi_M of each level: memory's queries meet the features' keys, its own values."""
    tokens = [F.conv2d(x, w[f"patch_embed{k}.proj.weight"], w[f"patch_embed{k}.proj.bias"],
                       stride=p).flatten(2).mT
              for k, (x, p) in enumerate(zip(levels, PATCHES, strict=True), start=1)]  # fmt: skip
    f = torch.cat(tokens, 2) + w["pos_embed"][:, 1:]
    m = (w["sem_token"] + w["pos_embed"][:, 1:]).expand_as(f)
    for i in range(DEPTH):
        own = parity.under(w, f"blocks.{i}.")
        q1, k1, v1 = linear(own, "attn.qkv", normed(own, "norm1", f)).chunk(3, -1)
        q2, _, v2 = linear(own, "attn.qkv", normed(own, "norm1", m)).chunk(3, -1)
        f, m = f + attended(own, q1, k1, v1), m + attended(own, q2, k1, v2)
        f, m = (x + linear(own, "mlp.fc2", F.gelu(linear(own, "mlp.fc1", normed(own, "norm2", x))))
                for x in (f, m))  # fmt: skip

    def unpatched(x, k, p):
        x = linear(w, f"decoder_pred{k}", normed(w, "norm", x)).unflatten(1, (SIDE, SIDE))
        return x.unflatten(3, (p, p, -1)).permute(0, 5, 1, 3, 2, 4).flatten(4).flatten(2, 3)

    return [[unpatched(x, k, p) for k, p in enumerate(PATCHES, start=1)] for x in (f, m)]


def carried(state, method):
    net, w = method.transformer, parity.under(state, "reconstructor.")
    parity.assert_same(net.code, w["pos_embed"][:, 1:], rtol=1e-6)  # float32 in both
    net.code, net.memory.data = w["pos_embed"][:, 1:], w["sem_token"]
    own = {"memory": net.memory, "heads.norm.weight": w["norm.weight"]}
    own["heads.norm.bias"] = w["norm.bias"]
    for end in ("weight", "bias"):
        for k, p in enumerate(PATCHES):
            embed = w[f"patch_embed{k + 1}.proj.{end}"]
            own[f"embed.{k}.{end}"] = embed.flatten(1) if end == "weight" else embed
            rows = w[f"decoder_pred{k + 1}.{end}"].unflatten(0, (p * p, -1))
            own[f"heads.levels.{k}.{end}"] = rows.transpose(0, 1).flatten(0, 1)
        for i in range(DEPTH):
            own |= {
                f"blocks.{i}.own.{o}.{end}": w[f"blocks.{i}.{t}.{end}"] for o, t in OURS.items()
            }
            parts = w[f"blocks.{i}.attn.qkv.{end}"].chunk(3)
            names = (f"blocks.{i}.own.attention.{name}.{end}" for name in "qkv")
            own |= dict(zip(names, parts, strict=True))
    net.load_state_dict(own)
    for k, level in enumerate(method.levels):
        level.norm.load_state_dict(parity.under(state, f"norms.{k}."))
        parity.carry_all_in_one(parity.under(state, f"nf_flows.{k}."), level.flow)


def subnet(w, x):
    """Depthwise conv, leaky ReLU, conv 1."""
    x = F.conv2d(
        x, w["0.weight"], w["0.bias"], padding=w["0.weight"].shape[-1] // 2, groups=x.shape[1]
    )
    return F.conv2d(torch.where(x > 0, x, x / 10), w["2.weight"], w["2.bias"])


def test_the_official_preset_is_the_authors_code():
    sizes = {"blocks": BLOCKS, "depth": DEPTH, "heads": HEADS, "embed": D}
    state, method = weights(), parity.official("dadf", SHAPES, **sizes)
    start = method.transformer.blocks[0].own.attention.q.weight.abs().max()
    assert 0.9 < start / math.sqrt(6 / (4 * WIDTH)) < 1  # of queries, keys and values in one layer
    carried(state, method)
    random = torch.Generator().manual_seed(9)
    levels = [torch.randn(3, *size, generator=random).double() for size in SHAPES.pyramid]
    features = Features(tuple(levels))
    method.fit_score([features])
    own, memory = rebuilt(parity.under(state, "reconstructor."), levels)
    outs, losses, maps = (
        method.scored_latents(features),
        method.loss(features),
        method.maps(features),
    )
    for name, part in (("self", own), ("memory", memory)):
        apart = [(x - y).square() for x, y in zip(levels, part, strict=True)]
        parity.assert_same(losses[name], sum(x.mean() for x in apart))
        errors = sum(parity.enlarged(x.mean(1), SHAPES.image, corners=True) for x in apart)
        parity.assert_same(maps[f"{name}_error"].values, errors)
    located = 0
    for k, parts in enumerate(zip(levels, own, memory, strict=True)):
        x = normed(parity.under(state, "norms."), str(k), torch.cat(parts, 1), (1, 2, 3))
        z, jac = parity.all_in_ones(parity.under(state, f"nf_flows.{k}."), x, subnet)
        parity.assert_same(outs[k].z, z)
        loss = (z.square().sum((1, 2, 3)) / 2 - jac.sum((1, 2))).mean()
        constant = math.log(2 * math.pi) / 2 * z[0].numel()  # theirs leaves it out
        parity.assert_same(losses[f"scale{k + 1}"] - constant, loss)
        p = (1 - z.square().mean(1) / 2).exp()
        located = located - parity.enlarged(p, SHAPES.image, corners=False) / len(levels)
    parity.assert_same((maps.anomaly - 1) * math.e, located)
    parity.assert_same((method.score(maps) - 1) * math.e, located.amax((1, 2)))
