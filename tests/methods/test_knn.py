"""kNN: exact distances, a memory that a run keeps, and no training."""

import pytest
import torch
from small_methods import features as drawn
from small_methods import images

from labkit.core.records import Features, Shapes
from labkit.flows.likelihood import top_mean
from labkit.methods import knn
from labkit.methods.base import on_one_grid
from labkit.methods.knn import KNN, KNNSpec, nearest

D = 12
SHAPES = Shapes((32, 32), token=D)


def tokens(n, seed=0):
    return torch.randn(n, D, generator=torch.Generator().manual_seed(seed))


def fitted(memory, **switches):
    method = KNN(KNNSpec(**switches), SHAPES)
    method.fit_statistics(Features(token=rows) for rows in memory.split(7))
    return method.eval()


def scores(method, rows):
    return method.score(method.maps(Features(token=rows)))


@pytest.mark.parametrize("k", [1, 4, 50])
def test_the_score_is_the_mean_squared_distance_of_the_nearest(k):
    memory, queries = tokens(50), tokens(9, seed=1)
    squares = torch.cdist(queries.double(), memory.double()).square()
    expected = squares.sort(1).values[:, :k].mean(1)
    torch.testing.assert_close(scores(fitted(memory, k=k), queries), expected)


def test_cosine_ignores_length_and_is_one_minus_the_cosine():
    memory, queries = tokens(30), tokens(9, seed=1)
    method = fitted(memory, distance="cosine", k=3)
    torch.testing.assert_close(scores(method, 5 * queries), scores(method, queries))
    cosines = torch.nn.functional.cosine_similarity(
        queries.double()[:, None], memory.double()[None], dim=2
    )
    expected = (1 - cosines).sort(1).values[:, :3].mean(1)
    torch.testing.assert_close(scores(method, queries), expected)


def test_patch_tokens_count_by_their_mean():
    memory, patches = tokens(40).reshape(10, 4, D), tokens(12, seed=1).reshape(3, 4, D)
    method = KNN(KNNSpec(main_input="y_spa"), SHAPES)
    method.fit_statistics([Features(token=tokens(10), patches=memory)])
    maps = method.maps(Features(token=tokens(3), patches=patches))
    expected = scores(fitted(memory.mean(1)), patches.mean(1))
    torch.testing.assert_close(method.score(maps), expected)


def test_too_few_training_images_are_named():
    with pytest.raises(ValueError, match="k=5 neighbours do not fit 4 training images"):
        scores(fitted(tokens(4)), tokens(1))


PATCHES = Shapes((32, 48), ((5, 4, 6), (3, 2, 3)), token=D)


@pytest.mark.parametrize("standardise", ["none", "whiten"])
def test_a_patch_is_held_against_those_of_all_images(standardise):
    spec = KNNSpec(main_input="patches", k=2, pool=1, grid=2, standardise=standardise)
    method, normals, asked = (
        KNN(spec, PATCHES).double(),
        drawn(9, 1, PATCHES),
        drawn(3, 2, PATCHES),
    )
    method.fit_statistics([normals])
    rows, queries = (
        on_one_grid(part.pyramid, (2, 2)).movedim(1, -1).reshape(-1, 8)
        for part in (normals, asked)
    )
    assert method.memory.shape == rows.shape == (36, 8)
    if standardise == "whiten":  # one Gaussian for all positions
        cov = torch.cov(rows.T, correction=0)
        cov = cov + spec.shrink * cov.trace() / 8 * torch.eye(8)
        lower = torch.linalg.cholesky(cov)
        rows, queries = (torch.linalg.solve_triangular(lower, x.T, upper=False).T
                         for x in (rows, queries))  # fmt: skip
    squares = torch.cdist(queries, rows).square().sort(1).values[:, :2].mean(1)
    maps = method.maps(asked)
    torch.testing.assert_close(maps.anomaly, images(squares.reshape(3, 2, 2), PATCHES.image))
    torch.testing.assert_close(method.score(maps), top_mean(maps.anomaly, 0.03))


def test_distances_do_not_depend_on_how_many_are_asked(monkeypatch):
    memory, queries = tokens(50), tokens(9, seed=1)
    whole = nearest(queries, memory, 3)
    monkeypatch.setattr(knn, "MOST", 100)
    torch.testing.assert_close(nearest(queries, memory, 3), whole, rtol=1e-12, atol=0)


def test_a_memory_of_another_run_is_read_with_its_whitening():
    method = fitted(tokens(30), standardise="whiten")
    again = KNN(method.spec, SHAPES)
    again.load_state_dict(method.state_dict())
    assert torch.equal(scores(again, tokens(4, 1)), scores(method, tokens(4, 1)))
