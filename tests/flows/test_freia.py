"""FrEIA's blocks as steps of our flows."""

import pickle
from typing import get_args

import FrEIA.modules
import pytest
import torch
from small_methods import SHAPES as METHOD_SHAPES
from small_methods import TRAINED, batch, build, features, slogdet
from test_flows import H, W, convolution, linear
from torch import nn

from labkit import methods
from labkit.core import config
from labkit.flows.flow import AtPositions
from labkit.flows.freia import Coupling, FreiaStep, coupling_step

BLOCKS = [name for name in get_args(Coupling) if name != "affine"]
VOLUME_KEEPING = {"nice", "gin"}
SHAPES = {0: (6,), 1: (6, H * W), 2: (6, H, W)}  # of rows, maps side by side, maps


def subnet(dims):
    if dims == 2:
        return convolution(3)
    return linear if dims == 0 else lambda a, b: nn.Conv1d(a, b, 3, padding=1).double()


def block(name, dims, cond=0):
    torch.manual_seed(0)
    step = coupling_step(name, 6, subnet(dims), cond, grid_dims=dims).double()
    for key, parameter in step.named_parameters():
        if "global" in key:  # FrEIA starts them at 1 and 0
            nn.init.uniform_(parameter, 18, 22)
    return step


@pytest.mark.parametrize("dims", list(SHAPES))
@pytest.mark.parametrize("name", BLOCKS)
def test_a_block_is_undone_and_its_log_det_is_the_jacobians(name, dims):
    step, shape = block(name, dims), SHAPES[dims]
    x = torch.randn(2, *shape, dtype=torch.float64)
    z, logdet = step(x)
    torch.testing.assert_close(step.inverse(z), x)
    assert logdet.shape == (2, *shape[1:])
    for k in range(2):
        expected = slogdet(lambda v: step(v[None]).z[0], x[k])
        torch.testing.assert_close(logdet[k].sum(), expected, atol=1e-9, rtol=1e-9)
    assert bool((logdet.abs() > 1e-3).any()) == (name not in VOLUME_KEEPING)


@pytest.mark.parametrize("name", BLOCKS)
def test_with_kernel_one_the_log_det_is_that_of_each_position(name):
    torch.manual_seed(0)
    step = coupling_step(name, 6, convolution(1), 4, grid_dims=2).double()
    x, cond = (torch.randn(1, c, H, W, dtype=torch.float64) for c in (6, 4))
    jac = torch.autograd.functional.jacobian(lambda v: step(v, cond).z, x)[0, ..., 0, :, :, :]
    for i, j in ((0, 0), (2, 4)):
        expected = torch.linalg.slogdet(jac[:, i, j, :, i, j]).logabsdet
        torch.testing.assert_close(step(x, cond).logdet[0, i, j], expected)
    torch.testing.assert_close(step.inverse(step(x, cond).z, cond), x)


def test_an_additive_flow_scales_uniformly_and_an_affine_one_does_not():
    """arXiv 2510.09452: with a constant log-det the density ranks as the energy of z does."""
    spread = {}
    for name in ("nice", "glow"):
        method = build("fastflow", coupling=name, zero_init=False)
        logdet = method.run(features(9))["scale1"].logdet.sum((1, 2))
        spread[name] = (logdet.max() - logdet.min()).item()
    assert spread["nice"] < 1e-10
    assert spread["glow"] > 1e-3


def test_the_permutation_of_all_in_one_follows_torchs_seed():
    one, again = (block("allinone", 2).module.w_perm for _ in range(2))
    assert torch.equal(one, again)
    assert not torch.equal(one[..., 0, 0], torch.eye(6, dtype=torch.float64))


@pytest.mark.parametrize("name", BLOCKS)
def test_a_block_fits_another_process(name):
    step = coupling_step(name, 6, nn.Linear)
    other, x = pickle.loads(pickle.dumps(step)), torch.randn(3, 6)
    assert torch.equal(other(x).z, step(x).z)


def test_a_log_det_per_image_is_refused_where_there_are_positions():
    norm = FreiaStep(FrEIA.modules.AllInOneBlock([(6, H, W)], subnet_constructor=convolution(1)))
    with pytest.raises(ValueError, match="AllInOneBlock gives one log-det per image"):
        norm.double()(torch.randn(2, 6, H, W, dtype=torch.float64))
    rows = FreiaStep(FrEIA.modules.AllInOneBlock([(6,)], subnet_constructor=linear)).double()
    assert AtPositions(rows)(torch.randn(2, 6, H, W).double()).logdet.shape == (2, H, W)


def test_likelihoods_stay_in_float32_in_a_mixed_training():
    step, x = coupling_step("glow", 6, nn.Linear), torch.randn(3, 6)
    with torch.autocast("cpu", torch.bfloat16):
        out = step(x)
    assert out.logdet.dtype == out.z.dtype == torch.float32
    assert torch.equal(out.z, step(x).z)


@pytest.mark.parametrize("coupling", BLOCKS)
@pytest.mark.parametrize("name", [n for n in TRAINED if n not in ("sanf", "fused")])
def test_every_flow_takes_every_coupling(name, coupling):
    method = build(name, coupling=coupling)
    sum(method.loss(features(), batch()).values()).backward()
    assert all(p.grad is not None for p in method.parameters() if p.requires_grad)
    method.eval().requires_grad_(False).fit_score([features(6, seed=1)])
    assert torch.isfinite(method.score(method.maps(features()))).all()
    assert any(isinstance(module, FreiaStep) for module in method.modules())
    for flow, x, cond, _ in method.flows(features()).values():
        torch.testing.assert_close(flow.inverse(flow(x, cond).z, cond), x)


def test_what_cannot_be_coupled_so_is_refused_in_one_sentence():
    with pytest.raises(ValueError, match="coupling='nice' does not fit"):
        methods.resolve("sanf", overrides={"coupling": "nice"})
    spec = config.resolve("dnfad", methods.get("dnfad").Spec, "x").flow
    official = config.change(
        methods.resolve("dnfad", overrides={"coupling": "glow"}), branch_arch="official"
    )
    assert spec.coupling == "affine"
    with pytest.raises(ValueError, match="leave coupling=affine"):
        methods.get("dnfad")(official.flow, METHOD_SHAPES)
