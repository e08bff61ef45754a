"""A method of your own: one class of forty lines and one line in the table."""

from dataclasses import dataclass

import pytest
import torch
from torch import nn

import labkit
from labkit import methods, studies
from labkit.core.config import Positive
from labkit.core.records import Map, Maps, Needs
from labkit.explore import microscope
from labkit.flows.flow import Flow, FlowInput
from labkit.flows.freia import Coupling, coupling_step
from labkit.flows.likelihood import anomaly, log_likelihood, top_mean, upsample
from labkit.flows.steps import Permute
from labkit.flows.whitening import Whitening
from labkit.methods.base import Method, on_one_grid


@dataclass(frozen=True, kw_only=True)
class MineSpec:
    """Its switches."""

    blocks: Positive = 2
    coupling: Coupling = "affine"


class Mine(Method):
    """Additive or affine couplings of each position on whitened features."""

    Spec, needs, title = MineSpec, Needs(pyramid=True), "mine: a flow of each position"

    def __init__(self, spec, shapes):
        super().__init__(spec, shapes)
        self.grid, channels = (8, 8), sum(level[0] for level in shapes.pyramid)
        self.whitening = Whitening("channel", channels, self.grid)
        steps = []
        for _ in range(spec.blocks):
            coupling = coupling_step(spec.coupling, channels, subnet, grid_dims=2)
            steps += [Permute(channels), coupling]
        self.couplings = Flow(steps)

    def fit_statistics(self, normals):
        self.whitening.fit(on_one_grid(x.pyramid, self.grid) for x in normals)

    def flows(self, features):
        x = on_one_grid(features.pyramid, self.grid)
        return {"density": FlowInput(Flow([self.whitening, self.couplings]), x)}

    def maps(self, features):
        log = log_likelihood(self.run(features)["density"])
        values = anomaly(upsample(log, self.shapes.image))
        return Maps({"density": Map(values, "−log density of each position")}, "density")

    def score(self, maps):
        return top_mean(maps.anomaly, 0.03)


def subnet(c_in, c_out):
    return nn.Sequential(nn.Conv2d(c_in, 8, 1), nn.ReLU(), nn.Conv2d(8, c_out, 1))


@pytest.mark.parametrize("coupling", ["affine", "nice"])
def test_it_trains_predicts_and_shows_its_latents_and_its_steps(coupling, monkeypatch):
    monkeypatch.setitem(methods.TABLE, "mine", Mine)
    options = {"limit": 6, "image_size": 64, "epochs": 2, "coupling": coupling}
    run = labkit.train("mine", "procedural/gear", "quick", progress=False, **options)
    assert list(run.history.columns[:2]) == ["epoch", "density"]
    assert run.history["density"].is_monotonic_decreasing
    image = run.samples()[0].read()
    (prediction,) = run.predict(image)
    assert list(prediction.maps) == ["density"]
    (view,) = microscope.views(run.detector, image).values()
    names = ["input", "mean and scale of each channel", "coupling 1", "coupling 2"]
    assert [step.name for step in view.steps] == names
    backbone = run.detector.backbone
    features = backbone(backbone.preprocess(image)[None], Mine.needs)
    with torch.no_grad():
        out = run.detector.method.latents(features)["density"]
    assert anomaly(log_likelihood(out)).mean().item() == pytest.approx(
        view.steps[-1].nll, rel=1e-5
    )


def test_a_study_of_it_runs_beside_the_script_that_has_it(monkeypatch, tmp_path):
    monkeypatch.setitem(methods.TABLE, "mine", Mine)
    monkeypatch.setattr(Mine, "__module__", "__main__")
    path = tmp_path / "mine-blocks.yaml"
    path.write_text(
        "{title: Mine, question: Which depth, paper: labkit, source: ours, method: mine,"
        " data: [procedural/gear], seeds: [0], vary: {blocks: [1, 2]}, base: blocks=2,"
        " set: {limit: 6, image_size: 64, epochs: 1}}"
    )
    options = {"budget": "quick", "workers": 2, "progress": False, "out": tmp_path / "out"}
    results = studies.run(path, **options)
    assert not results.failed
    assert set(results.table["variant"]) == {"blocks=1", "blocks=2"}
