"""SANFlow's `preset=official` against the formulas of its authors' code, with its weights' names.

Read: github.com/kdhRick2222/SANFlow at 0146283 (model.py, snet_loss.py, train.py) and FrEIA 0.2.
Its scores take max u, and the map its maximum, over the test set: here the images are that set.
"""

import math
import re

import parity
import pytest
import torch
from parity import assert_same, under
from torch.nn import functional as F

from labkit.core.records import Batch, Features, Shapes

SHAPES = Shapes((16, 24), ((6, 8, 12), (7, 4, 6), (4, 2, 3)))
BLOCKS, COND, WIDE, GRIDS = 2, 8, 3, [grid for _, *grid in SHAPES.pyramid]
THEIRS = {"first": "layer1", "last": "last_layer", "middle": "dncnn"}


def decoder_state(channels, seed):
    """One of `decoder_state_dict`; its subnets' inner layer is twice as wide as their input."""
    c_in = channels - channels // 2 + COND
    subnet = parity.two_layer_shapes(c_in, 2 * c_in, 2 * (channels // 2))
    return parity.all_in_one_state(channels, [subnet] * BLOCKS, dims=0, seed=seed)


def snet_state():
    shapes = {"layer1.weight": (WIDE, 3, 3, 3), "last_layer.weight": (2, WIDE, 3, 3)}
    shapes |= {f"dncnn.{k}.weight": (WIDE, WIDE, 3, 3) for k in (0, 3, 6)}
    norm = ("weight", "bias", "running_mean", "running_var")
    shapes |= {f"dncnn.{k}.{name}": (WIDE,) for k in (1, 4, 7) for name in norm}
    state = parity.random_weights(shapes, seed=5)
    return {k: v.abs() + 0.5 if k.endswith("var") else v for k, v in state.items()}


def decoded(state, level):
    """z and log-det of a level's positions, rows (n, C), each with the code of its place."""
    code = parity.position_code(COND, *level.shape[2:]).flatten(1).T.repeat(len(level), 1)
    rows = level.movedim(1, -1).flatten(0, 2)
    return parity.all_in_ones(state, rows, parity.two_linear, code, clamp=1.9)


def snet(state, image, training=False):
    """log alpha and log beta of each pixel, (B, 2, H, W)."""
    x = first = F.conv2d(image, state["layer1.weight"], padding=1).relu()
    for k in (0, 3, 6):
        x = F.conv2d(x, state[f"dncnn.{k}.weight"], padding=1)
        gain, bias, *running = under(state, f"dncnn.{k + 1}.").values()
        running = (None, None) if training else running
        x = F.batch_norm(x, *running, gain, bias, training).relu()
    return F.conv2d(x + first, state["last_layer.weight"], padding=1)


def at_rows(maps, grid):
    """Values (B, n, H, W) at the pixel that is nearest to each position, n of (B h w,)."""
    return F.interpolate(maps, grid).movedim(1, -1).flatten(0, 2).unbind(1)


def log_normal(z, a, b, mean=0.0):
    """log N(z; mean, s I), s the likeliest of InverseGamma(e^a, e^b), at most 5."""
    s = (b.exp() / (a.exp() + 1)).clamp(max=5)
    return -((z - mean).square().sum(1) / s + z.shape[1] * (2 * math.pi * s).log()) / 2


def objective(z, jac, a, b, bad):
    """-log sigmoid((l + J - KL - 0.2 CE) / C); l^n at expectations, with C E[log variance]."""
    alpha, alpha0, log_beta0 = a.exp(), 11**2 / 2 - 1, math.log(11**2 * 0.1 / 2)
    held_a, held_b = (torch.where(bad, v.detach(), v) for v in (a, b))
    ratio, channels = (held_a - held_b).exp(), z.shape[1]
    good = -channels * (math.log(2 * math.pi) / 2 + held_b - torch.digamma(alpha))
    good = good - z.square().sum(1) * ratio / 2
    other = log_normal(z, a.detach(), b.detach(), mean=1.0)
    chances = torch.stack([good, other], 1).softmax(1)
    ce = F.cross_entropy(chances, bad.long())  # which takes them for logits
    kl = (alpha - alpha0) * torch.digamma(alpha) + math.lgamma(alpha0) - torch.lgamma(alpha)
    kl = kl + alpha0 * (held_b - log_beta0) + math.exp(log_beta0) * ratio - alpha
    inner = torch.where(bad, other, good) + jac - kl - 0.2 * ce
    return F.softplus(-inner / channels).mean()


@pytest.fixture
def weights():
    """Their weights, the method that they are carried into, and what it sees."""
    h, states = snet_state(), [decoder_state(c, k) for k, (c, _, _) in enumerate(SHAPES.pyramid)]
    method = parity.official("sanflow", SHAPES, blocks=BLOCKS, position=COND, filters=WIDE)
    for level, state in zip(method.levels, states, strict=True):
        parity.carry_all_in_one(state, level.flow)
    for name, value in method.base.network.state_dict().items():
        value.copy_(h.get(re.sub(r"^\w+", lambda own: THEIRS.get(own[0], ""), name), value))
    shapes = {str(size): (3, *size) for size in ((3, *SHAPES.image), *SHAPES.pyramid)}
    image, *levels = parity.random_weights(shapes, 9, spread=1.0).values()
    return states, h, method, Features(tuple(levels), image=image)


def test_maps_and_scores_are_those_of_the_authors_code(weights):
    states, h, method, features = weights
    method.fit_score([features])
    maps, answer, total = method.maps(features), snet(h, features.image), 0
    for k, (state, level) in enumerate(zip(states, features.pyramid, strict=True)):
        z, jac = decoded(state, level)
        out = method.levels[k](method.levels[k].rows(level))
        assert_same(out.z, z)
        assert_same(out.logdet, jac)
        a, b = at_rows(answer, GRIDS[k])
        u = (log_normal(z, a, b) + jac) / level.shape[1]
        p = (u - u.max()).exp().unflatten(0, (3, *GRIDS[k]))
        total = total + parity.enlarged(p, SHAPES.image, corners=True)
    highest = total.max()  # over all images, for 3 here: no rank depends on it
    assert_same(maps.anomaly - 3, (highest - total) - highest)
    assert_same(method.score(maps) - 3, (highest - total).amax((1, 2)) - highest)
    assert_same(maps.family["variance"].values, answer[:, 1].exp() / (answer[:, 0].exp() + 1))


def test_each_level_is_trained_by_the_authors_objective_and_gradient(weights):
    states, h, method, features = weights
    mask, net = torch.zeros(3, *SHAPES.image), method.train().base.network
    mask[1, :9, :14], mask[2, 5:, 6:] = 0.4, 1.0
    for k, (state, level) in enumerate(zip(states, features.pyramid, strict=True)):
        leaves = [h[f"{name}.weight"] for name in ("layer1", "dncnn.4", "last_layer")]
        leaves = [v.requires_grad_() for v in (*leaves, state["module_list.0.subnet.0.weight"])]
        a, b = at_rows(snet(h, features.image, training=True), GRIDS[k])
        (bad,) = at_rows(mask[:, None].ceil(), GRIDS[k])
        theirs = objective(*decoded(state, level), a, b, bad > 0)
        step = Batch(label=torch.tensor([0, 1, 1]), defect_mask=mask, level=k)
        ours = method.loss(features, step)["objective"]
        assert_same(ours, theirs)
        first = method.levels[k].flow.steps[0].subnet[0]
        parts = [one.weight for one in (net.first, net.middle[4], net.last, first)]
        slopes = (torch.autograd.grad(*pair) for pair in ((ours, parts), (theirs, leaves)))
        for slope, expected in zip(*slopes, strict=True):
            assert_same(slope, expected)
