"""CFLOW-AD against its brief: parity with FrEIA, exact densities, fibres, its maps."""

import math

import pytest
import torch
from FrEIA.framework import SequenceINN
from FrEIA.modules import AllInOneBlock
from torch import nn
from torch.distributions import Normal

from labkit.core.records import Batch, Features, Shapes
from labkit.methods.cflow import CFLOW, CFLOWSpec, Level

SHAPES = Shapes((24, 40), ((6, 3, 5), (8, 2, 3)))
TINY = {"blocks": 2, "position": 8}
WRN50 = Shapes((256, 256), ((512, 32, 32), (1024, 16, 16), (2048, 8, 8)))


def tiny(**switches):
    torch.manual_seed(0)
    method = CFLOW(CFLOWSpec(**(TINY | switches)), SHAPES).double().eval()
    for parameter in method.parameters():  # away from the start, where scales and offsets are 1, 0
        nn.init.normal_(parameter, parameter.mean().item(), 0.1)
    return method


def features(n=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    drawn = [torch.randn(n, *s, generator=generator, dtype=torch.float64) for s in SHAPES.pyramid]
    return Features(tuple(drawn))


def images(n):
    return Batch(label=torch.zeros(n, dtype=torch.int64))


def test_parameter_count_of_the_paper():
    with torch.device("meta"):
        method = CFLOW(CFLOWSpec(), WRN50)
    assert sum(p.numel() for p in method.parameters()) == 81_647_616


def freia_twin(level, channels, cond):
    """The same level as FrEIA's AllInOneBlocks, with its weights."""

    def subnet(c_in, c_out):
        return nn.Sequential(nn.Linear(c_in, 2 * c_in), nn.ReLU(), nn.Linear(2 * c_in, c_out))

    twin = SequenceINN(channels)
    options = {"affine_clamping": 1.9, "global_affine_type": "SOFTPLUS", "permute_soft": False}
    options |= {"cond": 0, "cond_shape": (cond,), "subnet_constructor": subnet}
    for k in range(0, len(level.flow.steps), 3):
        coupling, affine, permute = level.flow.steps[k : k + 3]
        twin.append(AllInOneBlock, **options)
        block = twin.module_list[-1].double()
        block.subnet.load_state_dict(coupling.subnet.state_dict())
        block.global_scale.data = affine.raw_scale.data[None]
        block.global_offset.data = affine.offset.data[None]
        block.w_perm.data = torch.eye(channels, dtype=torch.float64)[permute.order]
    return twin


@pytest.mark.parametrize("k", [0, 1])
def test_a_level_equals_freias_conditional_chain(k):
    level, channels = tiny().levels[k], SHAPES.pyramid[k][0]
    rows = level.rows(features().pyramid[k])
    cond = level.code.double().repeat(2, 1)
    z, logdet = freia_twin(level, channels, 8)(rows, [cond])
    out = level(rows)
    torch.testing.assert_close(out.z, z)
    torch.testing.assert_close(out.logdet, logdet)


@pytest.mark.parametrize("objective", ["logsigmoid", "plain"])
def test_objective_is_the_papers(objective):
    method = tiny(objective=objective)
    losses = method.loss(features())
    for k, level in enumerate(method.levels):
        channels = SHAPES.pyramid[k][0]
        out = level(level.rows(features().pyramid[k]))
        constant = channels / 2 * math.log(2 * math.pi)
        u = (-0.5 * out.z.square().sum(1) + out.logdet - constant) / channels
        expected = -nn.functional.logsigmoid(u) if objective == "logsigmoid" else -u
        torch.testing.assert_close(losses[f"scale{k + 1}"], expected.mean())


@pytest.mark.parametrize(("mixing", "error"), [("permute", 1e-10), ("rotate", 1e-5)])
def test_each_rows_logdet_is_its_jacobians_and_the_flow_inverts(mixing, error):
    level = tiny(mixing=mixing).levels[0]
    rows = level.rows(features(1).pyramid[0])[:3]
    place = torch.tensor([4, 9, 2])
    out = level(rows, place)
    cond = level.code[place]
    assert (level.flow.inverse(out.z, cond) - rows).abs().max() < 10 * error
    for k in range(3):
        jac = torch.autograd.functional.jacobian(
            lambda v, k=k: level(v[None], place[k : k + 1]).z[0], rows[k]
        )
        assert abs(out.logdet[k] - torch.linalg.slogdet(jac).logabsdet) < error


def test_positions_are_independent():
    level = tiny().levels[0]
    rows = level.rows(features().pyramid[0])
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(1))
    whole, shuffled = level(rows), level(rows[order], order)
    torch.testing.assert_close(shuffled.z, whole.z[order])
    torch.testing.assert_close(shuffled.logdet, whole.logdet[order])
    parts = [level(r, p) for r, p in zip(rows.split(7), torch.arange(30).split(7), strict=True)]
    torch.testing.assert_close(torch.cat([part.z for part in parts]), whole.z)


def test_the_code_of_a_place_is_the_condition_and_can_be_cut_off():
    level = tiny().levels[0]
    row = level.rows(features(1).pyramid[0])[:1].expand(15, -1)
    assert level(row).z.std(0).max() > 1e-3
    for step in level.flow.steps[::3]:
        step.subnet[0].weight.data[:, step.first :] = 0
    torch.testing.assert_close(level(row).z, level(row).z[:1].expand(15, -1))
    assert tiny(position=0).levels[0].code is None
    assert tiny(position=0).loss(features())["scale1"].isfinite()


def test_fibres_see_every_position_of_a_batch_once():
    method = tiny(fibre=7)
    assert method.takes_microbatches
    parts = list(method.microbatches(features(), images(2), torch.Generator().manual_seed(0)))
    for k, count in ((0, 30), (1, 12)):
        places = torch.cat([told.place for _, told in parts if told.level == k])
        assert sorted(places.tolist()) == list(range(count))
    assert max(len(seen) for seen, _ in parts) == 7
    whole, weighed = method.loss(features()), {}
    for seen, told in parts:
        for name, value in method.loss(seen, told).items():
            weighed[name] = weighed.get(name, 0) + value * len(seen)
    torch.testing.assert_close(weighed["scale1"] / 30, whole["scale1"])
    torch.testing.assert_close(weighed["scale2"] / 12, whole["scale2"])
    again = method.microbatches(features(), images(2), torch.Generator().manual_seed(0))
    assert all(torch.equal(a[1].place, b[1].place) for a, b in zip(parts, again, strict=True))


def test_a_step_of_one_level_trains_that_level():
    method = tiny(level_steps=True)
    parts = list(method.microbatches(features(), images(2), torch.Generator()))
    assert [told.level for _, told in parts] == [0, 1]
    losses = method.loss(*parts[1])
    assert list(losses) == ["scale2"]
    losses["scale2"].backward()
    assert all(p.grad is None for p in method.levels[0].parameters())
    assert all(p.grad is not None for p in method.levels[1].parameters())


def test_the_most_normal_position_of_training_has_chance_one():
    method = tiny()
    method.fit_score([features(8, seed=5), features(8, seed=6)])
    for k in range(2):
        u = torch.cat([method.densities(features(8, seed=s))[k] for s in (5, 6)])
        torch.testing.assert_close(u.max(), method.peak[k])
    maps = method.maps(features())
    assert list(maps) == ["scale1", "scale2", "fused"]
    total = 0
    for u, peak in zip(method.densities(features()), method.peak, strict=True):
        chance = (u - peak).exp()[:, None]
        total = total + nn.functional.interpolate(chance, (24, 40), mode="bilinear")[:, 0]
    torch.testing.assert_close(maps.anomaly, 2 - total)
    torch.testing.assert_close(method.score(maps), (2 - total).amax((1, 2)))


def test_nats_are_the_logarithm_of_the_added_chances():
    method = tiny(fuse="nats", top_k=0.5)
    method.fit_score([features(8, seed=5)])
    maps = method.maps(features())
    chances = [(-maps[name].values).exp() for name in ("scale1", "scale2")]
    torch.testing.assert_close(maps.anomaly, -((chances[0] + chances[1]) / 2).log())
    half = maps.anomaly.flatten(1).sort(1, descending=True).values[:, :480]
    torch.testing.assert_close(method.score(maps), half.mean(1))


def test_a_flow_that_starts_as_the_identity_is_a_gaussian_per_place():
    method = CFLOW(
        CFLOWSpec(**TINY, standardise="place", zero_init=True, place_logdet=True), SHAPES
    ).double()
    method.fit_statistics([features(20, seed=s) for s in (3, 4)])
    x = torch.cat([features(20, seed=s).pyramid[0] for s in (3, 4)])
    gauss = Normal(x.mean(0), x.std(0, correction=0))
    expected = gauss.log_prob(features().pyramid[0]).mean(1)
    torch.testing.assert_close(method.eval().densities(features())[0], expected, rtol=1e-5, atol=0)


def test_a_coarser_grid_averages():
    level = Level(CFLOWSpec(**TINY, grid=2), 6, (4, 4), 1.0)
    x = torch.randn(1, 6, 4, 4)
    assert level.grid == (2, 2)
    torch.testing.assert_close(level.gather(x), nn.AvgPool2d(2)(x))


@pytest.mark.parametrize("scale", [1.0, 0.3162])
def test_a_base_of_another_scale_is_met_at_the_start(scale):
    level = Level(CFLOWSpec(**TINY, zero_init=True), 6, (3, 5), scale)
    rows = torch.randn(15, 6)
    assert level(rows).z.std().item() == pytest.approx(scale * rows.std().item(), rel=1e-4)
