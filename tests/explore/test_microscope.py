"""The microscope tells what the flow does: its figures are the method's, at every step."""

import numpy as np
import pytest
import torch

from labkit.explore import microscope
from labkit.figures import plots
from labkit.flows.flow import Flow, FlowInput
from labkit.flows.likelihood import log_likelihood
from labkit.flows.steps import AffineCoupling, ChannelAffine, Permute
from labkit_apps.web.views.microscope import values_figure


def convolution(c_in, c_out):
    return torch.nn.Conv2d(c_in, c_out, 1)


def linear(c_in, c_out):
    return torch.nn.Linear(c_in, c_out)


@pytest.fixture
def given_flow():
    torch.manual_seed(0)
    steps = [Permute(6), AffineCoupling(6, convolution), ChannelAffine(6, 0.7), Permute(6)]
    return FlowInput(Flow(steps), torch.randn(1, 6, 4, 5) * 2 + 1)


@pytest.fixture(scope="module")
def seen(quick_run):
    """A defective image and its views."""
    image = next(s for s in quick_run.samples() if s.label).read()
    return image, microscope.views(quick_run.detector, image)


def test_the_last_step_is_the_flows_own_density(given_flow):
    with torch.no_grad():
        view, out = microscope.follow(given_flow), given_flow.flow(given_flow.x)
    last = view.steps[-1]
    expected = -log_likelihood(out)[0].numpy()
    np.testing.assert_allclose(last.maps["−log p"][0], expected, rtol=1e-4, atol=1e-5)
    assert last.nll == pytest.approx(float(expected.mean()), rel=1e-5)
    assert last.total == pytest.approx(float(out.logdet.sum()), rel=1e-4)
    assert view.shape == (6, 4, 5)


def test_every_step_is_undone(given_flow):
    view = microscope.follow(given_flow)
    assert view.error < 1e-5 < view.spread


def test_a_flow_that_cannot_be_undone_has_an_error(given_flow):
    given_flow.flow.steps[1].inverse = lambda z, cond: z
    assert microscope.follow(given_flow).error > 0.1


def test_moments_are_those_of_the_values(given_flow):
    x = given_flow.x.double().numpy()
    first = microscope.follow(given_flow).steps[0]
    assert (first.mean, first.variance) == pytest.approx((x.mean(), x.var()))
    assert first.kurtosis == pytest.approx(((x - x.mean()) ** 4).mean() / x.var() ** 2 - 3)


def test_the_histogram_is_a_density_with_what_lies_outside(given_flow):
    for step in microscope.follow(given_flow).steps:
        width = 2 * plots.REACH / plots.LATENT_BINS
        assert step.shares.sum() * width + step.outside == pytest.approx(1)


def test_maps_share_one_scale_over_the_steps(given_flow):
    view = microscope.follow(given_flow)
    limits = microscope.limits(view.steps)
    assert set(limits) == set(microscope.UNITS)
    assert all(low < high for low, high in limits.values())
    image = np.zeros((8, 10, 3), np.uint8)
    bars = [{a.get_xlabel(): a.get_xlim() for a in microscope.maps_figure(view, k, image).axes
             if a.get_label() == "<colorbar>"} for k in (1, 2)]  # fmt: skip
    assert bars[0] == bars[1]
    assert all("[nats per channel]" in label.replace("\n", " ") for label in bars[0])


def test_permutations_are_left_out_and_blocks_are_numbered(given_flow):
    names = [step.name for step in microscope.follow(given_flow).steps]
    assert names == ["input", "coupling 1", "channel scale 1"]


def test_an_image_as_a_whole_has_numbers_and_no_maps():
    given_flow = FlowInput(Flow([AffineCoupling(6, linear)]), torch.randn(1, 6))
    view = microscope.follow(given_flow)
    assert microscope.maps_figure(view, 1, np.zeros((4, 4, 3), np.uint8)) is None
    assert len(values_figure(view, 1, view).axes) == 2


def test_a_run_has_a_view_of_each_branch(seen, quick_run):
    _, views = seen
    assert list(views) == ["global", "local"]
    for view in views.values():
        assert [step.name for step in view.steps[:1]] == ["input"]
        assert view.steps[-1].name.startswith("coupling")
        assert view.error < 1e-3 * view.spread


def test_the_views_add_up_to_the_runs_map(seen, quick_run):
    image, views = seen
    detector = quick_run.detector
    features = detector.backbone(detector.backbone.preprocess(image)[None], detector.method.needs)
    with torch.no_grad():
        outs = detector.method.latents(features)
    for name, view in views.items():
        expected = -log_likelihood(outs[name])[0].numpy()
        np.testing.assert_allclose(view.steps[-1].maps["−log p"][0], expected, atol=1e-3)


def test_figures_and_sentences_say_their_units(seen):
    _, views = seen
    view = views["global"]
    for step in range(len(view.steps)):
        said = microscope.sentence(view, step)
        assert "nats per dimension" in said
        assert "nats per image" in said
        labels = [ax.get_ylabel() for ax in values_figure(view, step).axes]
        assert labels == ["density [per unit of x]", "−log p so far\n[nats per dimension]"]
    assert "likely" in microscope.sentence(view, 1)


def test_a_method_without_a_flow_says_what_it_is(quick_run, monkeypatch):
    from labkit.methods.base import Method

    detector = quick_run.detector
    monkeypatch.setattr(type(detector.method), "flows", Method.flows)
    assert "no normalizing flow" in microscope.no_flow(detector)
    with pytest.raises(ValueError, match="dnfad has no normalizing flow"):
        microscope.views(detector, np.zeros((32, 32, 3), np.uint8))
