"""Counts by hand, on layers small enough for that; every method of the table has its row."""

from typing import get_args

import pytest
import torch
from torch import nn

from labkit import methods
from labkit.evaluation import cost
from labkit.flows.freia import Coupling

UNTRAINED = {"knn", "padim", "patchcore", "rad"}


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_a_multiplication_with_its_addition_counts_as_two_on_every_device(device):
    layer, images = nn.Conv2d(4, 6, 3, padding=1), torch.zeros(1, 4, 10, 8, device=device)
    assert cost.flops(lambda: layer.to(device)(images)) == 2 * 10 * 8 * 6 * 4 * 9
    q = torch.zeros(1, 2, 50, 8, device=device)
    attend = nn.functional.scaled_dot_product_attention
    assert cost.flops(lambda: attend(q, q, q)) == 2 * (2 * 2 * 50 * 50 * 8)


@pytest.mark.parametrize("name", methods.names())
def test_every_method_has_a_row(name):
    (row,) = cost.complexity([name], budget="quick")
    assert (row["method"], row["seconds_per_image"]) == (name, None)
    assert row["backbone_flops"] > 0
    assert (row["flops"] > 0) == (name != "knn")  # neighbours are not counted
    assert (row["trainable_parameters"] > 0) == (name not in UNTRAINED)


@pytest.mark.parametrize("coupling", get_args(Coupling))
def test_every_coupling_can_be_counted_without_weights(coupling):
    (row,) = cost.complexity(["cflow"], budget="quick", settings={"coupling": coupling})
    assert row["trainable_parameters"] > 0


def test_counts_are_those_of_a_method_with_weights():
    spec, backbone = cost.untrained("dnfad", "quick")
    kind = methods.get("dnfad")
    method = kind(spec.flow, backbone.shapes(kind.needs)).eval()
    image = torch.zeros(1, 3, backbone.image_size, backbone.image_size)
    features = backbone(image, kind.needs)
    expected = cost.trainable(method), cost.flops(lambda: method.maps(features))
    counted = cost.counts(spec, backbone)
    assert (counted["trainable_parameters"], counted["flops"]) == expected


def test_a_learned_query_is_counted_like_any_weight():
    """The counter fails on a view of a parameter that wants a gradient and has none."""
    spec, backbone = cost.untrained("sanf", "quick", {"fusion": "query"})
    assert cost.counts(spec, backbone)["flops"] > 0


def test_times_are_of_the_whole_and_of_the_method_alone(monkeypatch):
    monkeypatch.setattr(cost, "LEAST", 0.2)
    (row,) = cost.complexity(["dnfad"], budget="quick", timed=True)
    assert 0 < row["method_seconds"] < row["seconds_per_image"]
    assert 0 < row["backbone_seconds"] < row["seconds_per_image"]
    assert row["images_per_second"] == pytest.approx(1 / row["seconds_per_image"])


def test_an_unknown_method_is_named():
    with pytest.raises(ValueError, match="did you mean 'dnfad'"):
        cost.complexity(["dnfda"])
