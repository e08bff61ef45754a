"""PatchCore and RAD, against what their papers say, written out with loops."""

import numpy as np
import pytest
import torch
from small_methods import features as drawn
from torch.nn import functional as F

from labkit.core.records import Shapes
from labkit.methods.patchcore import PatchCore, PatchCoreSpec, coreset
from labkit.methods.rad import RAD, RADSpec

SHAPES = Shapes((32, 48), ((5, 4, 6), (3, 2, 3)), token=7)


def features(n, seed=0):
    return drawn(n, seed, SHAPES)


def fitted(kind, n=10, **switches):
    torch.manual_seed(0)
    method = kind(kind.Spec(**switches), SHAPES).double().eval()
    normals = features(n, seed=3)
    method.fit_statistics([normals.map(lambda part: part[:4]), normals.map(lambda part: part[4:])])
    return method


def test_the_coreset_leaves_no_row_far_from_it():
    """Twice the radius of the best k centres at most (Gonzalez 1985), and each row once."""
    generator = torch.Generator().manual_seed(0)
    centres = 20 * torch.randn(6, 4, generator=generator, dtype=torch.float64)
    rows = (centres[:, None] + torch.randn(6, 30, 4, generator=generator)).flatten(0, 1)
    chosen = coreset(rows, 6)
    assert sorted(chosen.div(30, rounding_mode="floor").tolist()) == list(range(6))
    largest = torch.cdist(rows, centres).amin(1).max()
    assert torch.cdist(rows, rows[chosen]).amin(1).max() <= 2 * largest
    picked = chosen[:1].tolist()
    for _ in range(60):  # no row is spared that a new centre is nearer to
        picked.append(int(torch.cdist(rows, rows[picked]).amin(1).argmax()))
    assert coreset(rows, 61).tolist() == picked
    every = coreset(rows, len(rows))
    assert sorted(every.tolist()) == list(range(len(rows)))
    assert torch.equal(every[:6], chosen)


def test_a_share_of_all_patches_is_kept():
    method, tested = fitted(PatchCore, coreset=0.25), features(10, seed=3)
    rows = method.gather(tested)
    assert len(method.memory) == round(0.25 * len(rows)) == 60
    assert torch.cdist(method.memory, rows).amin(1).max() < 1e-6  # patches, not averages of them
    pooled = F.avg_pool2d(tested.pyramid[0], 3, 1, 1, count_include_pad=False)
    assert torch.equal(rows.reshape(10, 4, 6, 8)[..., :5], pooled.movedim(1, -1))


def test_a_projection_chooses_nearly_as_well():
    rows = torch.randn(400, 300, generator=torch.Generator().manual_seed(0))
    shapes = Shapes((8, 8), ((300, 2, 2),))
    torch.manual_seed(0)
    method = PatchCore(PatchCoreSpec(coreset=0.1, pool=1), shapes)
    tested = rows.reshape(100, 2, 2, 300).movedim(-1, 1)
    method.fit_statistics([drawn(1, 0, shapes).map(lambda part: tested)])
    assert method.projection.shape == (300, 128)
    reach = [torch.cdist(rows, m).amin(1).max() for m in (method.memory, rows[coreset(rows, 40)])]
    assert reach[0] < 1.1 * reach[1]


@pytest.mark.parametrize("count", [None, 4])
def test_distances_and_the_score_are_the_papers(count):
    method, tested = fitted(PatchCore, coreset=0.2, sigma=0.0, neighbours=count), features(3)
    memory = method.memory
    x = method.gather(tested).reshape(3, -1, 8)
    maps = method.maps(tested)
    for k in range(3):
        gaps = torch.cdist(x[k], memory)
        grid = gaps.amin(1).reshape(1, 1, 4, 6)
        expected = F.interpolate(grid, SHAPES.image, mode="bilinear")[0, 0]
        torch.testing.assert_close(maps.anomaly[k], expected)
        score, row = gaps.amin(1).max(0)
        if count:
            star = memory[gaps[row].argmin()]
            around = memory[(memory - star).norm(dim=1).argsort()[:count]]
            terms = torch.exp((around - x[k, row]).norm(dim=1))
            score = (1 - torch.exp(score) / terms.sum()) * score
        torch.testing.assert_close(method.score(maps)[k], score)


def test_the_map_is_blurred_and_the_score_is_not():
    sharp, soft = (fitted(PatchCore, coreset=0.2, sigma=sigma) for sigma in (0.0, 4.0))
    ours, theirs = (method.maps(features(2)) for method in (sharp, soft))
    assert theirs.anomaly.std() < ours.anomaly.std()
    assert torch.equal(sharp.score(ours), soft.score(theirs))


@pytest.mark.parametrize("radius", [0, 1, 5])
@pytest.mark.parametrize("images", [3, 150])
def test_a_patch_is_matched_near_its_position_in_the_nearest_images(images, radius):
    method = fitted(RAD, images=images, radius=radius, sigma=0.0, top_k=0.0)
    tested, memory = features(2), features(10, seed=3).map(lambda part: part.half().double())
    maps = method.maps(tested)
    for k in range(2):
        alike = F.cosine_similarity(tested.token[k][None], memory.token).argsort(descending=True)
        every = []
        for level, kept in zip(tested.pyramid, memory.pyramid, strict=True):
            values = np.zeros(level.shape[2:])
            for h, w in np.ndindex(values.shape):
                near = kept[alike[:images], :, max(0, h - radius) : h + radius + 1]
                near = near[..., max(0, w - radius) : w + radius + 1]
                cosines = F.cosine_similarity(level[k, :, h, w][None, :, None, None], near)
                values[h, w] = 1 - cosines.max()
            grid = torch.from_numpy(values)[None, None]
            every.append(F.interpolate(grid, SHAPES.image, mode="bilinear")[0, 0])
        torch.testing.assert_close(maps["scale2"].values[k], every[1])
        torch.testing.assert_close(maps.anomaly[k], (every[0] + every[1]) / 2)
    torch.testing.assert_close(method.score(maps), maps.anomaly.amax((1, 2)))


def test_an_image_of_the_memory_is_its_own_best_match():
    method = fitted(RAD)
    scores = [method.score(method.maps(features(10, seed))) for seed in (3, 4)]
    assert scores[0].max() < 1e-6
    assert scores[1].min() > 0.1


def test_the_specs_are_the_papers():
    assert (PatchCoreSpec().coreset, PatchCoreSpec().sigma, PatchCoreSpec().pool) == (0.01, 4, 3)
    spec = RADSpec()
    assert (spec.images, spec.radius, spec.top_k, spec.sigma) == (150, 1, 0.01, 1)
