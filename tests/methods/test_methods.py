"""What every method promises, whatever its name."""

import inspect
import re
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from safetensors.torch import load_file, save_file

from labkit import methods
from labkit.core import config
from labkit.core.records import Batch, Features, Shapes
from labkit.flows.likelihood import log_likelihood
from labkit.methods.pyramid import Pyramid

SHAPES = Shapes((24, 40), ((6, 3, 5), (6, 2, 3)), token=8, patches=(15, 8), rotated=(4, 6))
UNTRAINED = {"knn", "padim"}  # no parameters
each_method = pytest.mark.parametrize("name", methods.names())
each_trained = pytest.mark.parametrize("name", [n for n in methods.names() if n not in UNTRAINED])


def build(name, seed=0):
    """A tiny method in float64, its statistics taken from drawn features."""
    kind = methods.get(name)
    spec = methods.resolve(name, "x", "quick", seed)
    torch.manual_seed(seed)
    method = kind(spec.flow, SHAPES).double()
    method.fit_statistics([features(20, seed=9)])
    return method


def features(n=4, seed=0):
    """All that a backbone can give, float64."""
    generator = torch.Generator().manual_seed(seed)
    sizes = [*SHAPES.pyramid, (SHAPES.token,), SHAPES.patches, (3, *SHAPES.image), SHAPES.rotated]
    drawn = [torch.randn(n, *s, generator=generator, dtype=torch.float64) for s in sizes]
    count = len(SHAPES.pyramid)
    return Features(tuple(drawn[:count]), *drawn[count:])


def batch(n=4):
    """The second half of the images has a defect in its upper left quarter."""
    mask = torch.zeros(n, *SHAPES.image)
    mask[n // 2 :, : SHAPES.image[0] // 2, : SHAPES.image[1] // 2] = 0.5
    return Batch(label=(torch.arange(n) >= n // 2).long(), defect_mask=mask)


def trained(name, steps=3):
    """After a few steps, every parameter has left its start."""
    method = build(name).train()
    if name in UNTRAINED:
        return method.eval()
    optimizer = torch.optim.AdamW(method.parameters(), lr=1e-2)
    for step in range(steps):
        optimizer.zero_grad()
        sum(method.loss(features(4, step), batch()).values()).backward()
        optimizer.step()
    method.eval().fit_score([features(8, seed=5)])
    return method


def scored(method, n=4, seed=0):
    """Every map and the scores of drawn features, in one row an image."""
    maps = method.maps(features(n, seed))
    drawn = [maps[key].values.flatten(1) for key in maps]
    return torch.cat([*drawn, method.score(maps)[:, None]], 1)


@each_method
def test_it_fills_the_interface(name):
    method = trained(name)
    assert method.title
    losses = method.loss(features(3), batch(3))
    assert bool(losses) == (name not in UNTRAINED) == bool(list(method.parameters()))
    assert all(value.ndim == 0 for value in losses.values())
    maps = method.maps(features(3))
    assert maps.main in maps.family or (maps.main is None and maps.whole.values.shape == (3,))
    if maps.main is None:
        assert maps.whole.meaning
        assert maps.whole.unit
        with pytest.raises(ValueError, match="no anomaly map"):
            _ = maps.anomaly
    for one in maps.family.values():
        assert one.values.shape == (3, *SHAPES.image)
        assert torch.isfinite(one.values).all()
        assert one.meaning
        assert one.unit
    score = method.score(maps)
    assert score.shape == (3,)
    assert score.dtype == torch.float64
    keys = config.keys_of(method.Spec)
    assert method.score_keys <= set(keys)
    assert all(set(preset) <= set(keys) for preset in method.presets.values())


@each_method
@pytest.mark.filterwarnings("ignore:.*do not vary")
def test_images_that_are_all_alike_give_no_absurd_numbers(name):
    alike = features(1, seed=9).map(lambda part: part.expand(12, *part.shape[1:]))
    method = build(name).eval()
    method.fit_statistics([alike])
    method.on_epoch_start(getattr(method.spec, "reconstruction_epochs", 0), [alike])  # DADF's
    method.fit_score([alike])
    same, other = (method.score(method.maps(one)).detach() for one in (alike, features(4)))
    assert same.max() - same.min() < 1e-6
    assert same.max() < other.min()
    assert other.max() < 1e6


@each_trained
def test_every_parameter_gets_a_finite_gradient(name):
    method = build(name)
    generator = torch.Generator().manual_seed(0)
    for seen, told in method.microbatches(features(), batch(), generator):
        sum(method.loss(seen, told).values()).backward()
    for key, parameter in method.named_parameters():
        assert parameter.grad is not None, key
        assert torch.isfinite(parameter.grad).all(), key
    clipped = {id(p) for group in method.clip_groups() for p in group}
    assert clipped == {id(p) for p in method.parameters()}


@each_method
def test_an_image_s_score_and_maps_ignore_the_rest_of_the_batch(name):
    method = trained(name)
    together = method.maps(features(4))
    for k in range(4):
        alone = method.maps(features(4).map(lambda t, k=k: t[k : k + 1]))
        for key in alone:
            torch.testing.assert_close(
                alone[key].values[0], together[key].values[k], rtol=1e-9, atol=1e-11
            )
        score = method.score(together)[k : k + 1]
        torch.testing.assert_close(method.score(alone), score, rtol=1e-9, atol=1e-11)


@each_trained
def test_the_same_seed_gives_the_same_numbers_and_another_does_not(name):
    one, again, other = (build(name, seed) for seed in (0, 0, 1))
    state = [torch.cat([p.flatten() for p in m.parameters()]) for m in (one, again, other)]
    assert torch.equal(state[0], state[1])
    assert not torch.equal(state[0], state[2])
    first, second = (scored(trained(name)) for _ in range(2))
    assert torch.equal(first, second)


@each_method
def test_it_is_stored_whole_and_read_back(name, tmp_path):
    method = trained(name)
    state = {key: value.contiguous() for key, value in method.state_dict().items()}
    save_file(state, tmp_path / "model.safetensors")
    other = type(method)(method.spec, SHAPES).double().eval()
    other.load_state_dict(load_file(tmp_path / "model.safetensors"))
    ours, theirs = method.maps(features()), other.maps(features())
    assert list(ours) == list(theirs)
    for key in ours:
        assert torch.equal(ours[key].values, theirs[key].values), key
    assert torch.equal(method.score(ours), other.score(theirs))


@each_method
def test_several_threads_may_ask_at_once_and_nothing_is_written(name):
    method = trained(name)
    before = {key: value.clone() for key, value in method.state_dict().items()}
    expected = [scored(method, 2, seed) for seed in range(6)]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda seed: scored(method, 2, seed), range(6)))
    for ours, theirs in zip(expected, found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
    assert all(torch.equal(before[key], value) for key, value in method.state_dict().items())


@each_method
@pytest.mark.parametrize("budget", list(config.BUDGETS))
def test_every_budget_and_preset_resolves(name, budget):
    for preset in ("", *methods.presets(name)):
        spec = methods.resolve(name, "x", budget, overrides={"preset": preset})
        assert config.restore(spec.to_json(), methods.get(name).Spec) == spec


@pytest.mark.parametrize(
    ("name", "count"), [("dnfad", 17), ("dadf", 7), ("sanf", 22), ("sanflow", 9), ("selfsup", 7)]
)
def test_every_equation_of_a_paper_can_be_found(name, count):
    text = inspect.getdoc(inspect.getmodule(methods.get(name)))
    assert [n for n in range(1, count + 1) if not re.search(rf"\beq\. {n}\b", text)] == []


def test_an_unknown_preset_is_refused_by_name():
    with pytest.raises(ValueError, match="Unknown preset 'offcial'; did you mean 'official'"):
        methods.resolve("sanflow", overrides={"preset": "offcial"})
    own = methods.resolve("sanflow", overrides={"preset": "1b", "kl": 0.5}).flow
    assert (own.bce, own.kl) == (0, 0.5)


def test_a_switch_that_does_nothing_is_refused():
    for override, need in (({"final_relu": True}, "needs branch_arch=official"),
                           ({"dsam": False, "gate": "add"}, "needs a branch with dsam=true"),
                           ({"standardise": "none", "shrink": 0.1}, "needs standardise=whiten"),
                           ({"coupling": "nice", "clamp": 1.5}, "only adds")):  # fmt: skip
        with pytest.raises(ValueError, match=f"{[*override][-1]}=.* does nothing.*{need}"):
            methods.resolve("dnfad", overrides=override)
    assert methods.resolve("dnfad", overrides={"preset": "official"}).flow.final_relu


@each_method
def test_latents_make_up_the_densities(name):
    method = trained(name)
    with torch.no_grad():
        outs = method.latents(features())
        for out in outs.values():
            assert out.z.shape[:1] + out.z.shape[2:] == out.logdet.shape
        switches = {"test_variance": "mode", "logdet": True}  # as given here, all counts
        usual = all(getattr(method.spec, key, value) == value for key, value in switches.items())
        if isinstance(method, Pyramid) and usual:
            pairs = zip(outs.values(), method.densities(features()), strict=True)
            for out, density in pairs:
                torch.testing.assert_close(log_likelihood(out), density)


@each_method
def test_a_method_has_flows_or_nothing_to_train(name):
    assert bool(trained(name).flows(features())) == (name not in UNTRAINED)


@each_trained
def test_each_flow_is_undone_and_starts_with_fixed_statistics(name):
    method = trained(name).requires_grad_(False)
    for given in method.flows(features(3)).values():
        z, _ = given.run()
        torch.testing.assert_close(given.flow.inverse(z, given.cond), given.x)
        labels = [label for label, _ in given.flow.trace(given.x, given.cond)]
        last = list(given.flow.trace(given.x, given.cond))[-1][1]
        torch.testing.assert_close(last, given.run())
        assert labels[0].startswith(("mean and scale", "whitening"))
        assert "coupling" in labels


@pytest.mark.parametrize("name", ["cflow", "fastflow-sp", "csflow", "sanf"])  # of each form one
def test_the_log_det_of_a_flow_is_the_jacobians(name):
    method = trained(name).requires_grad_(False)
    flow, x, cond, _ = list(method.flows(features(1)).values())[-1]  # the smallest level
    size = x.numel()
    jac = torch.autograd.functional.jacobian(lambda v: flow(v, cond).z, x)
    expected = torch.linalg.slogdet(jac.reshape(size, size)).logabsdet
    torch.testing.assert_close(flow(x, cond).logdet.sum(), expected)


@each_trained
def test_the_loss_and_the_maps_come_from_flows(name, monkeypatch):
    """A flow whose latents are moved moves losses and maps: there is no second forward pass."""
    method = trained(name).requires_grad_(False)
    before = method.loss(features())
    score = method.score(method.maps(features()))
    for step in method.modules():
        if type(step).__name__ in ("AffineCoupling", "FusionCoupling"):
            monkeypatch.setattr(step, "clamp", 2 * step.clamp)
    assert any((before[key] != value).any() for key, value in method.loss(features()).items())
    assert (method.score(method.maps(features())) != score).any()


def test_weights_of_version_0_1_are_read_under_their_present_names():
    method = build("dnfad")
    state = {key: value.clone() for key, value in method.state_dict().items()}
    old = {
        key.replace("whitening.", "stem.steps.0.").replace("branches.", "flows."): value + 1
        for key, value in state.items()
    }
    assert set(old) & set(state) == {"peak"}
    method.load_state_dict(old)
    assert all(torch.equal(value, state[key] + 1) for key, value in method.state_dict().items())
