"""Statistics of the other images, in closed form, against a fit without the image."""

import pytest
import torch
from small_methods import SHAPES, build, features

from labkit import methods
from labkit.core import config
from labkit.flows.whitening import LEFT, Whitening

GRID = (3, 4)


def images(n, channels=4, grid=GRID, seed=0):
    """Channels that vary together, and a mean and scale of each position."""
    torch.manual_seed(seed)
    mix = torch.eye(channels) + 0.5 * torch.randn(channels, channels)
    scale, mean = 0.5 + torch.rand(grid), 3 * torch.randn(channels, *grid)
    values = torch.einsum("ij,njhw->nihw", mix, torch.randn(n, channels, *grid))
    return (scale * values + mean).double()


def error(x, mode="whiten", shrink=1e-12, pooled=0.0):
    """Largest relative error of |z|^2 and error of the log-det per dimension, over all images."""

    def step(rows):
        options = {"statistics": "loo", "pooled": pooled}
        made = Whitening(mode, x.shape[1], tuple(x.shape[2:]), shrink, **options).double()
        made.fit(rows.split(5))
        return made

    ours, square, volume = step(x).train()(x), [], []
    for k in range(len(x)):
        z, logdet = step(torch.cat([x[:k], x[k + 1 :]])).eval()(x[k : k + 1])
        square.append(ours.z[k].square().sum(0) / z[0].square().sum(0) - 1)
        volume.append((ours.logdet[k] - logdet[0]) / x.shape[1])
    return tuple(torch.stack(values).abs().max().item() for values in (square, volume))


@pytest.mark.parametrize(("mode", "shrink"), [("whiten", 1e-12), ("place", 0.1)])
def test_it_is_a_fit_without_the_image(mode, shrink):
    assert max(error(images(20), mode, shrink)) < 1e-9


@pytest.mark.parametrize(
    ("count", "options", "square", "volume"),
    [
        (20, {"shrink": 0.1}, 0.06, 0.05),  # the ridge is that of all images
        (60, {"shrink": "ledoit-wolf"}, 0.05, 0.04),  # so is the shrinkage's share
        (60, {"shrink": "oas"}, 0.05, 0.03),
        (20, {"pooled": 0.5}, 0.15, 0.06),  # what the image adds to the pooled part is left out
        (60, {"pooled": 0.5}, 0.05, 0.02),
        (60, {"pooled": 1.0}, 0.1, 0.03),
        (60, {"pooled": 0.5, "shrink": 0.03}, 0.05, 0.02),
    ],
)
def test_what_is_approximate_errs_as_one_over_n(count, options, square, volume):
    errors = error(images(count), **options)
    assert errors[0] < square
    assert errors[1] < volume


def test_in_sample_latents_are_short_and_those_left_out_as_long_as_unseen_ones():
    x = images(400, channels=12)
    step = Whitening("whiten", 12, GRID, 0.01, statistics="loo").double()
    step.fit([x[:24]])
    inside, outside = (step.train(mode)(x[:24]).z.square().mean() for mode in (False, True))
    unseen = step.eval()(x[24:]).z.square().mean()
    assert inside < 1
    assert unseen > 1.6
    assert outside.item() == pytest.approx(unseen.item(), rel=0.1)


def test_what_was_not_fitted_is_bounded_and_eval_mode_leaves_nothing_out():
    x = images(20)
    step, plain = (Whitening("whiten", 4, GRID, 0.03, statistics=s) for s in ("loo", "insample"))
    for one in (step, plain):
        one.double().fit([x])
    far = x + 100
    whitened = plain(far)
    assert torch.equal(step.eval()(far).z, whitened.z)
    assert torch.equal(plain.train()(x).z, plain.eval()(x).z)
    longest = (20 / 19 / LEFT) ** 0.5
    torch.testing.assert_close(step.train()(far).z, longest * whitened.z, rtol=1e-6, atol=0)
    assert set(dict(step.named_buffers())) - set(dict(plain.named_buffers())) == {"count", "own"}


@pytest.mark.parametrize("shrink", [0.03, "oas"])
def test_pooling_goes_from_each_positions_covariance_to_the_mean_of_all(shrink):
    x, covs = images(30), {}
    for share in (0.0, 0.25, 1.0):
        step = Whitening("whiten", 4, GRID, shrink, pooled=share).double()
        step.fit(x.split(7))
        covs[share] = torch.linalg.inv(step.whitener.mT @ step.whitener)
    assert (covs[1.0] - covs[1.0][:1]).abs().max() < 1e-6
    if shrink == 0.03:  # the ridge follows the covariance it is added to
        own = torch.stack([torch.cov(x[:, :, h, w].T, correction=0) for h in range(3)
                           for w in range(4)])  # fmt: skip
        mixed = 0.75 * own + 0.25 * own.mean(0)
        ridge = shrink * mixed.diagonal(dim1=1, dim2=2).mean(1)[:, None, None] * torch.eye(4)
        torch.testing.assert_close(covs[0.25], mixed + ridge, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["dnfad", "cflow", "fastflow", "sanflow", "selfsup", "sanf"])
def test_only_training_sees_it_and_every_flow_can(name):
    def losses(**options):
        torch.manual_seed(0)
        method = build(name, standardise="whiten", **options)
        return method, [method.train(mode).run(features(20, seed=9)) for mode in (True, False)]

    with torch.no_grad():
        method, (training, scoring) = losses(statistics="loo")
        _, (_, same) = losses()
    for key, out in scoring.items():
        assert torch.equal(out.z, same[key].z)
        assert training[key].logdet.mean() != out.logdet.mean()
    state = method.state_dict()
    methods.get(name)(method.spec, SHAPES).load_state_dict(state)


def test_a_default_keeps_the_hash_and_another_value_changes_it():
    def digest(**options):
        return methods.resolve("cflow", "procedural/gear", "quick", 0, options).digest()

    stored = methods.resolve("cflow", "procedural/gear", "quick").to_json()
    older = {k: v for k, v in stored["flow"].items() if k not in config.ADDED}
    restored = config.restore(stored | {"flow": older}, methods.get("cflow").Spec)
    assert restored.digest() == digest() == digest(statistics="insample", pooled=0)
    assert len({digest(), digest(statistics="loo"), digest(pooled=0.5)}) == 3


@pytest.mark.parametrize(
    ("name", "options", "reason"),
    [
        ("dnfad", {"statistics": "loo", "standardise": "channel"}, "whiten or place"),
        ("cflow", {"pooled": 0.5, "standardise": "place"}, "needs standardise=whiten"),
        ("sanf", {"statistics": "loo", "standardise": "channel"}, "whiten or place"),
    ],
)
def test_what_does_nothing_is_refused(name, options, reason):
    with pytest.raises(ValueError, match=f"does nothing here.*{reason}"):
        methods.resolve(name, "x", "quick", 0, options)
    for other in ("differnet", "knn"):  # copies of an image are not left out by leaving out one
        with pytest.raises(ValueError, match="Unknown key 'statistics'"):
            methods.resolve(other, "x", "quick", 0, {"statistics": "loo"})
