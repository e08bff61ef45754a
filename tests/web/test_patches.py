"""A position's latents and its nearest normal patch."""

import numpy as np
import pytest
import torch

from labkit.figures.style import ANOMALOUS, NORMAL
from labkit.flows.likelihood import log_likelihood
from labkit.methods.base import on_one_grid
from labkit_apps.web.patches import POOL, Latent, NormalPatches, cell, latents
from labkit_apps.web.views.position import position_latents


@pytest.fixture(scope="module")
def patches(quick_run):
    detector = quick_run.detector
    return NormalPatches.of(
        quick_run.experiment.parts["train"], detector.backbone, detector.method.needs
    )


def test_the_normals_are_those_that_trained(quick_run, patches):
    keys = {sample.key for sample in patches.samples}
    assert len(keys) == quick_run.summary()["n_train"]
    assert not keys & set(quick_run.scores["key"])


def test_a_patch_of_a_normal_is_its_own_nearest(quick_run, patches):
    detector, sample = quick_run.detector, patches.samples[-1]
    batch = detector.backbone.preprocess(sample.read())[None]
    position = (0.4, 0.7)
    patch = patches.nearest(detector.backbone(batch, detector.method.needs), position)
    assert (patch.sample.key, patch.cell) == (sample.key, cell(patches.grid, position))
    assert patch.distance < 1e-2 * patches.usual  # features are cached in float16


def test_the_nearest_patch_is_the_exact_minimum(quick_run, patches):
    detector = quick_run.detector
    image = next(s for s in quick_run.samples() if s.label).read()
    batch = detector.backbone.preprocess(image)[None]
    features = detector.backbone(batch, detector.method.needs)
    patch = patches.nearest(features, (0.5, 0.5))
    maps = on_one_grid(features.pyramid, patches.grid, POOL)[0] / patches.scale
    row, column = cell(patches.grid, (0.5, 0.5))
    every = (patches.rows.double() - maps[:, row, column].double()).square().mean(1)
    assert patch.distance == pytest.approx(float(every.min()), rel=1e-4)


@pytest.mark.parametrize(
    ("position", "found"), [((0, 0), (0, 0)), ((1, 1), (3, 4)), ((0.5, 0.26), (1, 2))]
)
def test_a_cell_holds_its_place(position, found):
    assert cell((4, 5), position) == found


def test_the_latent_of_a_place_makes_up_its_density(quick_run):
    detector, sample = quick_run.detector, quick_run.samples()[0]
    batch = detector.backbone.preprocess(sample.read())[None]
    with torch.no_grad():
        outs = detector.method.latents(detector.backbone(batch, detector.method.needs))
    rows = latents(outs, (0.1, 0.9))
    assert set(rows) == {"global", "local"}
    for name, one in rows.items():
        row, column = cell(outs[name].z.shape[2:], (0.1, 0.9))
        expected = log_likelihood(outs[name])[0, row, column]
        density = one.logdet - one.energy / 2 - 0.5 * torch.log(torch.tensor(2 * torch.pi))
        assert float(density) == pytest.approx(float(expected), rel=1e-5)


def test_one_panel_per_flow_on_shared_axes_coloured_by_its_energy():
    rng = np.random.default_rng(0)
    near, far = (Latent(scale * rng.normal(size=200), 0.0) for scale in (1, 3))
    figure = position_latents({"near": near, "far": far})
    assert [ax.get_title(loc="left") for ax in figure.axes] == ["near", "far"]
    assert figure.axes[0].get_xlim() == figure.axes[1].get_xlim()
    edges = [ax.patches[0].get_edgecolor()[:3] for ax in figure.axes]
    expected = [tuple(int(c[k : k + 2], 16) / 255 for k in (1, 3, 5)) for c in (NORMAL, ANOMALOUS)]
    np.testing.assert_allclose(edges, expected)
