"""DifferNet against its brief: size, copies drawn by the seed, a score that is their mean."""

import math

import pytest
import torch
from small_methods import features as random
from small_methods import small
from torchvision import models

from labkit import methods
from labkit.core.records import Batch, Features, Needs, Shapes
from labkit.features import backbones
from labkit.methods.differnet import ROTATIONS, DifferNet, DifferNetSpec
from labkit.training.experiment import Experiment

D = 6
SHAPES = Shapes((32, 32), rotated=(ROTATIONS, D))


def tiny(**switches):
    return small(DifferNet, SHAPES, 0, **{"blocks": 2, "hidden": 5} | switches)


def features(n=3, seed=0):
    return random(n, seed, SHAPES)


def drawn(method, n, seed):
    generator = torch.Generator().manual_seed(seed)
    told = Batch(label=torch.zeros(n, dtype=torch.int64))
    ((seen, _),) = method.microbatches(features(n), told, generator)
    return seen.rotated


@pytest.mark.parametrize("count", [1, 2, ROTATIONS])
def test_the_score_is_the_mean_over_copies(count):
    method, seen = tiny(test_turns=count), features()
    chosen = seen.rotated[:, :: ROTATIONS // count]
    alone = [method.run(Features(rotated=chosen[:, [k]]))["copies"].z for k in range(count)]
    expected = torch.cat([z.square().mean(1) for z in alone], 1).mean(1)
    torch.testing.assert_close(method.score(method.maps(seen)), expected)
    assert list(method.maps(seen)) == []


def test_a_step_sees_different_copies_of_each_image_and_the_seed_fixes_which():
    method, every = tiny(turns=3), features(20).rotated
    seen = drawn(method, 20, seed=0)
    assert seen.shape == (20, 3, D)
    found = [[every[i].eq(row).all(1).nonzero().item() for row in seen[i]] for i in range(20)]
    assert all(len(set(row)) == 3 for row in found)
    assert len({tuple(row) for row in found}) > 5
    assert torch.equal(seen, drawn(method, 20, seed=0))
    assert not torch.equal(seen, drawn(method, 20, seed=1))


def test_standardised_copies_have_unit_energy_at_the_start():
    method = tiny(standardise="whiten", shrink=1e-6, zero_init=True)
    seen = features(200, seed=3)
    method.fit_statistics([seen])
    assert method.score(method.maps(seen)).mean().item() == pytest.approx(1, abs=1e-3)
    assert math.isfinite(method.loss(seen)["nll"].item())


@pytest.fixture(scope="module")
def alexnet(tmp_path_factory):
    """torchvision's AlexNet with random weights, and a file of all of them."""
    torch.manual_seed(1)
    model, path = models.alexnet().eval(), tmp_path_factory.mktemp("w") / "alexnet.tv_in1k.pth"
    torch.save(model.state_dict(), path)
    return model, path


def test_alexnet_is_read_from_torchvisions_file_and_pooled_at_three_sizes(alexnet):
    model, path = alexnet
    backbone = backbones.load(str(path), 256)
    images = torch.rand(2, 3, 256, 256, generator=torch.Generator().manual_seed(0))
    rotated = backbone(images, DifferNet.reads(DifferNetSpec(rotations=5))).rotated
    assert rotated.shape == (2, 5, 768)
    whole = model.features((images - backbone.mean) / backbone.std)
    torch.testing.assert_close(rotated[:, 0, :256], whole.mean((2, 3)), rtol=1e-3, atol=1e-3)
    levels = backbone(images, Needs(pyramid=True)).pyramid
    assert [tuple(level.shape[1:]) for level in levels] == [(64, 31, 31), (192, 15, 15)]
    with pytest.raises(ValueError, match="image_size=256 or more"):
        backbones.load(str(path), 128)(images[..., :128, :128], Needs(rotations=4))
    path.with_name("alexnet.mine.pth").write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"does not hold the weights of alexnet\.mine"):
        backbones.load(str(path.with_name("alexnet.mine.pth")), 64)


def test_random_angles_are_the_images_own_and_of_training_alone():
    spec = DifferNetSpec(rotations=6, angles="random")
    needs, backbone = DifferNet.reads(spec, True), backbones.load("random/resnet18", 128)
    assert (needs.rotations, needs.random_angles) == (6, True)
    assert DifferNet.reads(spec) == Needs(rotations=6)
    assert backbone.fingerprint(needs) != backbone.fingerprint(Needs(rotations=6))
    images = torch.rand(3, 3, 128, 128, generator=torch.Generator().manual_seed(0))
    degrees = [backbones.angles(image, needs) for image in images]
    assert len({angle for own in degrees for angle in own}) == 18
    assert 0 <= min(map(min, degrees)) < 90 < 270 < max(map(max, degrees)) < 360
    together, alone = backbone(images, needs).rotated, backbone(images[1:2], needs).rotated
    torch.testing.assert_close(together[1:2], alone)
    torch.testing.assert_close(
        alone[:, 2], backbone.pooled(images[1:2], degrees[1][2]).half().float()
    )
    with pytest.raises(ValueError, match=r"turns=4 and test_turns=9 .* set rotations=9 or more"):
        DifferNet.reads(DifferNetSpec(test_turns=9))


def test_an_experiment_trains_on_random_angles_and_scores_even_ones():
    own = {"angles": "random", "rotations": 5, "limit": 2}
    opened = Experiment.of("differnet", "procedural/gear", "quick", overrides=own)
    assert opened.feature_set(opened.samples, training=True).needs.random_angles
    assert opened.feature_set(opened.samples).needs == opened.build().needs == Needs(rotations=5)


def test_the_gradient_map_is_of_each_image_alone_and_leaves_no_gradient():
    torch.manual_seed(0)
    backbone = backbones.load("random/resnet18", 128)
    method = DifferNet(DifferNetSpec(blocks=1, hidden=8), Shapes((128, 128), rotated=(4, 1536)))
    images = torch.rand(2, 3, 128, 128)
    maps = method.gradient_map(backbone, images)
    assert maps.shape == (2, 128, 128)
    assert (maps >= 0).all()
    assert all(parameter.grad is None for parameter in method.parameters())
    torch.testing.assert_close(
        method.gradient_map(backbone, images[1:]), maps[1:], rtol=1e-3, atol=0
    )


def test_the_paper_budget_is_alexnet_with_random_and_64_test_angles():
    config = methods.resolve("differnet", budget="paper")
    assert (config.input.backbone, config.input.image_size) == ("alexnet.tv_in1k", 448)
    assert (config.flow.angles, config.flow.turns, config.flow.test_turns) == ("random", 4, 64)
    assert config.train.betas == (0.8, 0.8)
