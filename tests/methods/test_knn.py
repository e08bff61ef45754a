"""kNN: exact distances, a memory that a run keeps, and no training."""

import pytest
import torch

from labkit.core.records import Features, Shapes
from labkit.methods.knn import KNN, KNNSpec

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
