"""Branches weighed anew: their own weights give the method's map, one alone its branch."""

import numpy as np
import pytest
import torch

import labkit
from labkit import metrics
from labkit.explore import reweigh


@pytest.fixture(scope="module")
def known(quick_run):
    return reweigh.judge(quick_run, quick_run.samples())


def test_equal_weights_are_the_methods_own(known, quick_run):
    even = dict.fromkeys(known.maps, 0.7)
    spec = quick_run.detector.method.spec
    scores = known.scores(even, spec.top_k)
    own = [one.score for one in quick_run.predict(*[s.read() for s in known.samples])]
    np.testing.assert_allclose(scores, own, rtol=1e-4)
    labels = [sample.label for sample in known.samples]
    assert known.auroc(even, spec.top_k) == metrics.image_auroc(scores, labels)


def test_one_weight_is_one_branch(known):
    for name, maps in known.maps.items():
        alone = {other: float(other == name) for other in known.maps}
        torch.testing.assert_close(known.fused(alone), maps)
        highest = maps.flatten(1).amax(1).numpy()
        np.testing.assert_allclose(known.scores(alone, 0), highest, rtol=1e-6)


def test_a_mix_lies_between_its_branches(known):
    mixed = known.fused({"global": 0.2, "local": 0.8}, 0)
    parts = torch.stack([maps[0] for maps in known.maps.values()])
    assert (mixed <= parts.amax(0) + 1e-4).all()
    assert (mixed >= parts.amin(0) - 1e-4).all()


@pytest.mark.parametrize("weights", [(0, 0), (-1, 2)])
def test_weights_that_cannot_be(known, weights):
    with pytest.raises(ValueError, match="weights must not be below 0"):
        known.fused(dict(zip(known.maps, weights, strict=True)))


def test_a_method_without_branches_is_named():
    run = labkit.train("knn", "procedural/gear", "quick", limit=4, k=1, progress=False)
    with pytest.raises(ValueError, match="knn has no two branches"):
        reweigh.judge(run, run.samples()[:2])
