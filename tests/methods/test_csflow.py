"""CS-Flow against its brief: size, the inverse that the code lacks, one density of three maps."""

import pytest
import timm
import torch
from small_methods import features as drawn
from small_methods import small

from labkit import methods
from labkit.core.records import Shapes
from labkit.features import backbones
from labkit.methods.csflow import CSFlow, CSFlowSpec

SHAPES = Shapes((32, 48), ((4, 4, 6), (4, 2, 3), (4, 1, 2)))
B5 = Shapes((768, 768), ((304, 24, 24), (304, 12, 12), (304, 6, 6)))


def tiny(shapes=SHAPES, **switches):
    return small(CSFlow, shapes, **{"blocks": 3, "hidden": 5} | switches)


def features(n=2, seed=0, shapes=SHAPES):
    return drawn(n, seed, shapes)


def row(seen):
    """The maps side by side, (B, C, N)."""
    return torch.cat([level.flatten(2) for level in seen.pyramid], 2)


def test_the_papers_tap_has_the_channels_of_block_35():
    with torch.device("meta"):
        model = timm.create_model("tf_efficientnet_b5")
    (tap,), blocks = (
        methods.resolve("csflow", budget="paper").input.taps,
        [len(stage) for stage in model.blocks],
    )
    end = backbones._stages(model)[tap]
    assert sum(blocks[:end]) == 36
    image = torch.empty(1, 3, 768, 768, device="meta")
    told = {"intermediates_only": True, "extra_blocks": True}
    (level,) = model.forward_intermediates(image, indices=[end], **told)
    assert tuple(level.shape[1:]) == B5.pyramid[0]


def test_the_flow_starts_as_permutations_of_its_own_for_each_map():
    torch.manual_seed(0)
    method, seen = CSFlow(CSFlowSpec(blocks=2, hidden=5), SHAPES).double(), features()
    out = method.run(seen)["all scales"]
    assert out.logdet.abs().max() == 0
    orders = [step.parts for step in method.flow.steps[::2]]
    sizes = [24, 6, 2]
    starts = row(seen).split(sizes, 2)
    for k, (x, z) in enumerate(zip(starts, out.z.split(sizes, 2), strict=True)):
        assert torch.equal(z, x[:, orders[0][k].order][:, orders[1][k].order])
    assert len({tuple(order.order.tolist()) for block in orders for order in block}) > 1


def test_the_maps_of_all_sizes_are_multiplied_or_added_in_nats():
    seen = features()
    product = tiny(fuse="product").maps(seen)
    parts = [product[f"scale{k}"].values for k in (1, 2, 3)]
    torch.testing.assert_close(product.anomaly, parts[0] * parts[1] * parts[2])
    nats = tiny(fuse="nats")
    nats.fit_score([features(9, seed=1)])
    maps = nats.maps(seen)
    chances = torch.stack([(-maps[f"scale{k}"].values).exp() for k in (1, 2, 3)])
    torch.testing.assert_close(maps.anomaly, -chances.mean(0).log())


def test_log_dets_have_no_product():
    with pytest.raises(ValueError, match=r"fuse=product multiplies maps of z².* take fuse=nats"):
        tiny(fuse="product", logdet=True)


def test_maps_must_have_one_number_of_channels():
    with pytest.raises(ValueError, match=r"one number of channels; got \[4, 6\]"):
        tiny(Shapes((8, 8), ((4, 2, 2), (6, 1, 1))))
