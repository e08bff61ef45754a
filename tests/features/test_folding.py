"""Folding a batch normalisation into its convolution changes no answer, and saves a pass."""

import pytest
import torch
from torch import nn

from labkit.core.records import Needs
from labkit.features import backbones
from labkit.features.fold_batchnorm import folded

NEEDS = Needs(pyramid=True, token=True)


def norms(module):
    return sum(isinstance(part, nn.BatchNorm2d) for part in module.modules())


@pytest.mark.parametrize(
    ("name", "left"),
    [
        ("efficientnet_lite0", 0),
        ("random/resnet18", 0),
        ("random/mobilenetv3_small_100", 0),
        ("random/resnetv2_50", 17),  # those before an activation have no convolution before them
        ("random/vit_tiny_patch16_224", 0),
    ],
)
def test_features_are_those_of_the_network_as_it_came(name, left):
    plain, fused = backbones.load(name, 64, fold=False), backbones.load(name, 64)
    image = torch.rand(1, 3, 64, 64)
    theirs, ours = plain(image, NEEDS).parts(), fused(image, NEEDS).parts()
    for part, tensor in theirs.items():
        half = 2.0**-23  # features are rounded to half, whose smallest step is 2^-24
        near = max(half, 1e-5 * float(tensor.abs().max()))
        torch.testing.assert_close(ours[part], tensor, rtol=1e-3, atol=near)
    assert norms(fused) == left
    assert (norms(plain) > left) == ("vit" not in name)
    assert fused.fingerprint(NEEDS) == plain.fingerprint(NEEDS)
    assert fused.parameter_count == sum(p.numel() for p in plain.parameters())
    assert not any(p.requires_grad for p in fused.parameters())


class Net(nn.Module):
    """A convolution, what it says to a normalisation, and perhaps to someone else too."""

    def __init__(self, aside):
        super().__init__()
        self.conv, self.norm, self.aside = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), aside
        self.norm.running_mean.fill_(2.0)
        self.norm.running_var.fill_(9.0)

    def forward_features(self, images):
        x = self.conv(images)
        return self.norm(x) + self.aside * x


def test_an_output_that_someone_else_reads_is_not_folded():
    image = torch.rand(1, 3, 16, 16)
    for aside, left in ((0.0, 0), (1.0, 1)):
        net = Net(aside).eval()
        expected = net.forward_features(image)
        found = folded(net, image)
        assert norms(found) == left
        torch.testing.assert_close(found.forward_features(image), expected)


def test_loading_does_not_touch_the_random_numbers_of_others():
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    backbones.load("random/resnet18", 64)
    assert torch.equal(torch.rand(3), expected)
