"""What every method promises, whatever its name."""

import inspect
import re
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import pytest
import torch
from safetensors.torch import load_file, save_file
from small_methods import (
    SHAPES,
    TRAINED,
    UNTRAINED,
    batch,
    build,
    features,
    parameters,
    shaken,
    slogdet,
)

import labkit
from labkit import methods
from labkit.core import config
from labkit.core.records import Shapes
from labkit.flows.likelihood import LOG_2PI, log_likelihood
from labkit.methods.pyramid import Pyramid

each_method = pytest.mark.parametrize("name", methods.names())
each_trained = pytest.mark.parametrize("name", TRAINED)
DNFAD_SWITCHES = [
    {"branch_arch": "official", "gate": "add", "gate_kernel": 3},
    {"branch_arch": "official", "final_relu": True},
    {"dsam": False, "standardise": "channel"},
    {"layer_norm": False, "standardise": "whiten"},
    {"position": 0},
    {"local_kernel": 1, "standardise": "none"},
    {"branches": "global"},
    {"branches": "local"},
    {"norm_place": "gate"},
]
SANF_SWITCHES = [
    {"fusion": fusion, "main_input": main}
    for fusion in ("none", "mean", "query", "token")
    for main in ("y_sem", "y_spa")
]
SWITCHES = dict.fromkeys(TRAINED, ()) | {
    "dnfad": DNFAD_SWITCHES,
    "sanf": SANF_SWITCHES,
    "cflow": [{"mixing": "rotate"}, {"position": 0}],
    "dadf": [{"coupling": "nice"}, {"subnet": "conv"}, {"subnet": "separable"}],
    "fastflow": [{"kernels": "3"}, {"kernels": "1"}],
    "selfsup": [{"subnet": "plain"}, {"subnet": "convolution"}],
    "sanflow": [{"mean": "estimated"}],
}
VARIANTS = [(name, switches) for name in TRAINED for switches in ({}, *SWITCHES[name])]


@cache
def trained(name, steps=3, **switches):
    """After a few steps, every parameter has left its start; made once for all tests."""
    method = build(name, **switches).train()
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
    trains = name not in UNTRAINED
    assert bool(losses) == trains == bool(list(method.parameters()))
    assert bool(method.flows(features())) == trains
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
    keys = {*config.keys_of(method.Spec)}
    assert method.score_keys <= keys
    keys |= {*config.keys_of(config.InputSpec)}
    assert all(set(preset) <= keys for preset in method.presets.values())


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


@pytest.mark.parametrize(("name", "switches"), VARIANTS, ids=str)
def test_every_parameter_gets_a_finite_gradient(name, switches):
    method = build(name, **switches)
    generator = torch.Generator().manual_seed(0)
    for seen, told in method.microbatches(features(), batch(), generator):
        sum(method.loss(seen, told).values()).backward()
    for key, parameter in method.named_parameters():
        assert parameter.grad is not None, key
        assert torch.isfinite(parameter.grad).all(), key
    clipped = {id(p) for group in method.clip_groups() for p in group}
    assert clipped == {id(p) for p in method.parameters()}


@pytest.mark.parametrize(("name", "switches"), VARIANTS, ids=str)
def test_each_flow_is_undone_and_its_log_det_is_the_jacobians(name, switches):
    """To 1e-9 in float64 and 1e-4 in float32, away from the start, on a grid of few positions."""
    wide = name == "csflow" or "grid" not in config.keys_of(methods.get(name).Spec)
    few = {} if wide else {"grid": 2}
    method = shaken(build(name, **few | switches)).eval().requires_grad_(False)
    most = 1e-5 if "mixing" in switches else 1e-9  # a rotation is drawn in float32
    for kind, error in ((torch.float32, 1e-4), (torch.float64, most)):
        method, given = method.to(kind), features(1).map(lambda part, kind=kind: part.to(kind))
        for flow, x, cond, _ in method.flows(given).values():
            z = flow(x, cond).z
            apart = (flow.inverse(z, cond) - x).abs().max()
            assert apart < error * max(1, x.abs().max(), z.abs().max())
    flow, x, cond, _ = min(method.flows(given).values(), key=lambda one: one.x.numel())
    expected = slogdet(lambda value: flow(value, cond).z, x)
    torch.testing.assert_close(flow(x, cond).logdet.sum(), expected, rtol=most, atol=most)


@pytest.mark.parametrize(
    ("name", "switches"),
    [(name, {}) for name in methods.names()]
    + [
        ("dnfad", {"norm": n, "fuse": f})
        for n in ("image", "train_max")
        for f in ("nats", "probability")
    ],
    ids=str,
)
def test_an_image_s_score_and_maps_ignore_the_rest_of_the_batch(name, switches):
    method = trained(name, **switches)
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
    assert torch.equal(scored(trained(name)), scored(trained.__wrapped__(name)))


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


SCALES = ("scale1", "scale2", "scale3")


@pytest.mark.parametrize(
    ("name", "maps"),
    [
        ("knn", ()),
        ("padim", ("distance",)),
        ("patchcore", ("distance",)),
        ("rad", ("scale1", "scale2", "fused")),
        ("csflow", SCALES),
    ],
)
def test_a_run_is_stored_and_says_of_an_image_what_it_said(name, maps):
    run = labkit.train(name, "procedural/gear", "quick", limit=9, progress=False)
    assert (len(run.history) == 0) == (run.info["trainable_parameters"] == 0) == (name != "csflow")
    again = labkit.load_run(run.folder)
    if name == "knn":
        assert len(again.detector.method.memory) == run.info["counts"]["n_train"] == 9
    sample = again.samples()[0]
    (prediction,) = again.predict(sample.read())
    stored = again.scores.set_index("key").loc[sample.key, "score"]
    assert prediction.score == pytest.approx(stored, rel=1e-2, abs=1e-2)  # half precision
    main = "fused" if "fused" in maps else next(iter(maps), None)
    assert (prediction.main, {*prediction.maps}) == (main, {*maps})


def test_an_unknown_preset_is_refused_by_name():
    with pytest.raises(ValueError, match="Unknown preset 'offcial'; did you mean 'official'"):
        methods.resolve("sanflow", overrides={"preset": "offcial"})
    own = methods.resolve("sanflow", overrides={"preset": "1b", "kl": 0.5}).flow
    assert (own.bce, own.kl) == (0, 0.5)


def test_a_switch_that_does_nothing_is_refused():
    for override, need in (({"final_relu": True}, "needs branch_arch=official"),
                           ({"dsam": False, "gate": "add"}, "needs dsam=true"),
                           ({"standardise": "none", "shrink": 0.1}, "needs standardise=whiten"),
                           ({"enlarge": "official"}, "needs fuse=probability"),
                           ({"coupling": "nice", "arctan": "rounded"}, "needs coupling=affine"),
                           ({"coupling": "nice", "clamp": 1.5}, "only adds")):  # fmt: skip
        with pytest.raises(ValueError, match=f"{[*override][-1]}=.* does nothing.*{need}"):
            methods.resolve("dnfad", overrides=override)
    assert methods.resolve("dnfad", overrides={"preset": "official"}).flow.final_relu
    with pytest.raises(ValueError, match="loss_scale=sum does nothing here: it needs fastflow"):
        methods.resolve("fastflow-sp", overrides={"loss_scale": "sum"})
    for name, override in (("csflow", {"coupling": "nice", "arctan": "rounded"}),
                           ("cflow", {"fibre": 256, "level_steps": True}),
                           ("knn", {"grid": 8}),
                           ("sanflow", {"bce": 0, "official_gradient": True}),
                           ("sanflow", {"preset": "2a", "turn": 30}),
                           ("sanflow", {"preset": "3a", "prior_mode": 0.3}),
                           ("selfsup", {"supervision": False, "nsa_official": True})):  # fmt: skip
        with pytest.raises(ValueError, match=f"{[*override][-1]}=.* does nothing here"):
            methods.resolve(name, overrides=override)


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


@pytest.mark.parametrize("name", ["dnfad", "sanf", "csflow", "differnet", "selfsup"])
def test_a_zero_start_only_shuffles_the_channels(name):
    method = build(name, standardise="none", zero_init=True)
    for given in method.flows(features()).values():
        out = given.run()
        assert torch.equal(out.z.sort(1).values, given.x.sort(1).values)
        assert not torch.equal(out.z, given.x)
        assert not out.logdet.any()


@each_trained
def test_each_flow_starts_with_fixed_statistics(name):
    method = trained(name).requires_grad_(False)
    for given in method.flows(features(3)).values():
        labels, outs = zip(*given.flow.trace(given.x, given.cond), strict=True)
        torch.testing.assert_close(outs[-1], given.run())
        assert labels[0].startswith(("mean and scale", "whitening"))
        assert "coupling" in labels


@pytest.mark.parametrize(
    "name", ["dnfad", "sanf", "cflow", "fastflow", "csflow", "differnet", "selfsup"]
)
def test_the_loss_is_the_negative_log_density_per_dimension(name):
    switches = {"objective": "plain"} if name == "cflow" else {}
    method = shaken(build(name, standardise="none", **switches)).eval()
    losses, outs = method.loss(features()), method.run(features()).values()
    constant = 0 if name in ("dnfad", "sanf", "csflow", "differnet") else LOG_2PI / 2
    for loss, out in zip(losses.values(), outs, strict=True):
        whole = 0.5 * out.z.square().sum() - out.logdet.sum()
        torch.testing.assert_close(loss, whole / out.z.numel() + constant)


@pytest.mark.parametrize("name", ["dnfad", "cflow", "fastflow", "csflow", "selfsup", "dadf"])
def test_a_share_of_the_main_maps_pixels_scores(name):
    method = trained(name, top_k=0.5)
    maps = method.maps(features())
    half = maps.anomaly.flatten(1).sort(1, descending=True).values[:, :480]
    torch.testing.assert_close(method.score(maps), half.mean(1))


B5 = ((304, 24, 24), (304, 12, 12), (304, 6, 6))
WRN50 = ((256, 64, 64), (512, 32, 32), (1024, 16, 16), (2048, 8, 8))
VIT8 = Shapes((224, 224), ((768, 28, 28),))
OFFICIAL = {"branch_arch": "official", "gate_kernel": 3}
PAPER_SIZES = [  # method, switches, shapes, submodule, how many
    ("dnfad", OFFICIAL | {"blocks": 4}, VIT8, "branches.local", 39_241_904),
    ("dnfad", OFFICIAL | {"blocks": 4}, VIT8, "branches.global", 19_627_092),
    ("dnfad", OFFICIAL, VIT8, "branches.local", 58_862_856),
    ("dnfad", OFFICIAL, VIT8, "branches.global", 29_440_638),
    ("dnfad", {}, VIT8, "branches.local", 6 * 2 * (4_905_024 + 160 + 35 + 2)),  # as recommended
    ("dadf", {}, Shapes((256, 256), WRN50[:3]), "transformer", 213_358_048),
    ("dadf", {}, Shapes((256, 256), WRN50[:3]), "levels", 49_803_264),
    ("sanf", {}, Shapes((384, 384), token=1024, patches=(576, 1024)), "", 48_283_648),
    ("sanf", {}, Shapes((384, 384), token=768, patches=(576, 768)), "", 27_168_768),
    ("sanflow", {}, Shapes((256, 256), WRN50[1:]), "levels", 137_502_720),
    ("sanflow", {}, Shapes((256, 256), WRN50[1:]), "base", 113_856),
    ("selfsup", {}, Shapes((448, 448), ((768, 28, 28),)), "", 3_511_680),
    ("selfsup", {"subnet": "plain"}, Shapes((448, 448), ((768, 28, 28),)), "", 3_511_680),
    ("selfsup", {"subnet": "convolution"}, Shapes((448, 448), ((768, 28, 28),)), "", 2_770_560),
    ("cflow", {}, Shapes((256, 256), WRN50[1:]), "", 81_647_616),
    ("fastflow", {}, Shapes((256, 256), WRN50[:3]), "", 41_337_856),
    ("csflow", {}, Shapes((768, 768), B5), "", 275_227_288),
    ("differnet", {}, Shapes((448, 448), rotated=(64, 768)), "", 172_077_056),
]


@pytest.mark.parametrize(("name", "switches", "shapes", "part", "count"), PAPER_SIZES, ids=str)
def test_parameter_counts_at_the_papers_sizes(name, switches, shapes, part, count):
    kind = methods.get(name)
    with torch.device("meta"):
        method = kind(kind.Spec(**switches), shapes)
    assert parameters(method.get_submodule(part)) == count


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
