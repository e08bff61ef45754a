"""A method's flow step by step is the method's flow: same latent, same log-det, invertible."""

import pytest
import torch
from test_methods import UNTRAINED, features, trained

from labkit import methods
from labkit.core.records import FlowOut
from labkit.flows.steps import AffineCoupling, Flow, Permute
from labkit.flows.trace import AsMap, AtPlaces, Chain, OfTheImage, SideBySide
from labkit.flows.whitening import Standardise

WITH_FLOW = [name for name in methods.names() if name not in UNTRAINED]


def linear(c_in, c_out):
    return torch.nn.Linear(c_in, c_out).double()


@pytest.fixture(params=WITH_FLOW)
def method(request):
    return trained(request.param).requires_grad_(False)


@pytest.fixture
def chains(method):
    return method.chains(features(3))


def test_each_chain_ends_at_the_latent(method, chains):
    latents = method.named_latents(features(3))
    found = [chain.flow(chain.x, chain.cond).z for chain in chains.values()]
    if len(chains) == len(latents):
        assert list(chains) == list(latents)
        for z, out in zip(found, latents.values(), strict=True):
            torch.testing.assert_close(z.reshape(out.z.shape), out.z)
    else:  # one joint flow of several maps
        rows = torch.cat([out.z.flatten(2) for out in latents.values()], 2)
        torch.testing.assert_close(found[0], rows)


def test_each_chain_can_be_undone(chains):
    for chain in chains.values():
        z = chain.flow(chain.x, chain.cond).z
        torch.testing.assert_close(chain.flow.inverse(z, chain.cond), chain.x)


@pytest.mark.parametrize("name", ["cflow", "fastflow-sp", "csflow", "sanf"])  # of each form one
def test_the_log_det_is_that_of_the_jacobian(name):
    method = trained(name).requires_grad_(False)
    chain = list(method.chains(features(1)).values())[-1]  # the smallest level
    x, size = chain.x.detach(), chain.x.numel()
    jac = torch.autograd.functional.jacobian(lambda v: chain.flow(v, chain.cond).z, x)
    expected = torch.linalg.slogdet(jac.reshape(size, size)).logabsdet
    torch.testing.assert_close(chain.flow(x, chain.cond).logdet.sum(), expected)


def test_the_trace_names_its_steps_and_ends_where_the_flow_ends(chains):
    for chain in chains.values():
        told = list(chain.trace())
        names = [name for name, _ in told]
        assert names[0] == "input"
        assert len(set(names)) == len(names) >= 3
        out = chain.flow(chain.x, chain.cond)
        torch.testing.assert_close(told[-1][1].logdet, out.logdet)
        torch.testing.assert_close(told[-1][1].z.sort(1).values, out.z.sort(1).values)
        total = out.logdet.flatten(1).sum(1) if out.logdet.ndim > 1 else out.logdet
        drawn = [one.flatten(1).sum(1) for one in chain.maps(out.logdet)]
        if drawn:
            torch.testing.assert_close(sum(drawn), total)


def test_methods_without_a_flow_have_no_chain():
    for name in UNTRAINED:
        assert trained(name).chains(features(2)) == {}


def test_forms_change_neither_values_nor_log_det():
    torch.manual_seed(0)
    x = torch.randn(2, 4, 3, 5, dtype=torch.float64)
    coupling = AffineCoupling(4, linear)
    z, logdet = AtPlaces(coupling).to_latent(x)
    one, local = coupling.to_latent(x[:, :, 1, 2])
    torch.testing.assert_close((z[:, :, 1, 2], logdet[:, 1, 2]), (one, local))
    stem = Standardise("channel", 4, (1, 1)).double()
    stem.fit([x])
    torch.testing.assert_close(
        AsMap(stem).to_latent(x.flatten(2))[0], stem.to_latent(x)[0].flatten(2)
    )
    halves = SideBySide([stem, stem], ((3, 5), (3, 5)))
    twice = torch.cat([x.flatten(2)] * 2, 2)
    torch.testing.assert_close(halves.to_data(halves.to_latent(twice)[0]), twice)


def test_a_base_of_the_image_is_undone():
    scale = torch.rand(1, 1, 3, 5, dtype=torch.float64) + 0.5
    grown = 4 * scale[:, 0].log()
    step = OfTheImage(4, lambda out: FlowOut(out.z * scale - 1, out.logdet + grown))
    x = torch.randn(2, 4, 3, 5, dtype=torch.float64)
    torch.testing.assert_close(step.to_data(step.to_latent(x)[0]), x)


def test_permutations_are_left_out():
    flow = Flow([Permute(4), AffineCoupling(4, linear), Permute(4)])
    chain = Chain(flow, torch.randn(2, 4, dtype=torch.float64))
    assert [name for name, _ in chain.trace()] == ["input", "coupling 1"]
    assert chain.maps(torch.zeros(2)) == ()
