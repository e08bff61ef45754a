"""The cache: computed once, bounded, shared, whole or absent, rebuilt when damaged."""

import os
import resource
import subprocess
import sys
from functools import partial

import numpy as np
import pytest
import torch

from labkit.core.records import GOOD, Needs, Sample
from labkit.features import backbones
from labkit.features import cache as features
from labkit.features.cache import FeatureCache, FeatureSet

NEEDS = Needs(pyramid=True, token=True)


def noise(seed):
    return np.random.default_rng(seed).integers(0, 256, (40, 40, 3), dtype=np.uint8)


def samples(n=6):
    return [Sample(f"train/good/{k}", GOOD, partial(noise, k), partial(str, k)) for k in range(n)]


@pytest.fixture(scope="module")
def backbone():
    return backbones.load("random/resnet18", 64)


def feature_set(backbone, folder, n=6, limit=10**9):
    return FeatureSet(samples(n), backbone, NEEDS, FeatureCache(folder, limit))


def test_features_are_the_backbones_and_computed_once(backbone, tmp_path):
    data = feature_set(backbone, tmp_path).extract(progress=False)
    assert data.computed == 6
    images = torch.stack([backbone.preprocess(noise(k)) for k in (4, 1)])
    expected = backbone(images, NEEDS)
    got = data.batch([4, 1])
    for name, part in expected.parts().items():
        assert torch.equal(got.parts()[name], part)
    again = feature_set(backbone, tmp_path).extract(progress=False)
    assert again.computed == 0
    assert sum(len(batch) for batch in again.batches(4)) == 6


def test_an_overlapping_set_computes_the_rest_only(backbone, tmp_path):
    feature_set(backbone, tmp_path, 4).extract(progress=False)
    assert feature_set(backbone, tmp_path, 6).extract(progress=False).computed == 2


@pytest.mark.parametrize("damage", ["flip", "truncate", "empty"])
def test_a_damaged_file_is_rebuilt(backbone, tmp_path, damage):
    data = feature_set(backbone, tmp_path).extract(progress=False)
    before = data.batch([2])
    path = data.cache.path(data.keys[2])
    content = bytearray(path.read_bytes())
    content[-7] ^= 0xFF
    keep = {"flip": bytes(content), "truncate": bytes(content[:-100]), "empty": b""}
    path.unlink()
    path.write_bytes(keep[damage])
    again = feature_set(backbone, tmp_path).extract(progress=False)
    assert again.computed == 1
    torch.testing.assert_close(again.batch([2]).token, before.token)


def test_the_folder_stays_within_its_limit_and_the_oldest_go_first(backbone, tmp_path):
    data = feature_set(backbone, tmp_path).extract(progress=False)
    sizes = [data.cache.path(key).stat().st_size for key in data.keys]
    for age, key in enumerate(reversed(data.keys)):
        os.utime(data.cache.path(key), (1000 - age, 1000 - age))
    cache = FeatureCache(tmp_path, limit=sum(sizes[3:]))
    assert cache.evict() == sum(sizes[:3])
    left = [cache.path(key).exists() for key in data.keys]
    assert left == [False] * 3 + [True] * 3
    assert cache.evict() == 0


def test_what_was_evicted_meanwhile_is_computed_again(backbone, tmp_path):
    data = feature_set(backbone, tmp_path).extract(progress=False)
    before = data.batch([3]).token
    data.cache.path(data.keys[3]).unlink()
    with pytest.warns(UserWarning, match="evict features .* raise LABKIT_CACHE_GB"):
        torch.testing.assert_close(data.batch([3]).token, before)


def test_nothing_half_written_is_left(backbone, tmp_path):
    data = feature_set(backbone, tmp_path).extract(progress=False)
    names = {path.name for path in data.cache.folder.rglob("*") if path.is_file()}
    assert names == {".lock", *(f"{key}.safetensors" for key in data.keys)}


WRITER = """
import resource, signal, sys
from pathlib import Path
import torch
from labkit.features import FeatureCache
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
cache = FeatureCache(Path(sys.argv[1]))
try:
    cache.write("ab" * 32, {"x": torch.zeros(100_000)})
except ValueError as error:
    print(error)
print(sorted(p.name for p in cache.folder.rglob("*") if p.is_file()))
"""


def test_a_full_disk_is_one_sentence_and_leaves_nothing(tmp_path):
    assert resource.RLIMIT_FSIZE  # the write itself fails in the child, as on a full disk
    done = subprocess.run(
        [sys.executable, "-c", WRITER, str(tmp_path)], capture_output=True, text=True, check=True
    )
    sentence, left = done.stdout.strip().splitlines()
    assert "disk is full" in sentence
    assert "LABKIT_CACHE" in sentence
    assert left == "[]"


SHARER = """
import sys
import test_features as t
from labkit.features import backbones
data = t.feature_set(backbones.load("random/resnet18", 64), sys.argv[1], 12)
print(data.extract(progress=False).computed)
"""


def test_two_processes_share_a_folder_and_compute_each_image_once(tmp_path):
    command = [sys.executable, "-c", SHARER, str(tmp_path)]
    asked = {"stdout": subprocess.PIPE, "text": True}
    asked["env"] = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    running = [subprocess.Popen(command, **asked) for _ in range(2)]
    counts = [int(process.communicate(timeout=120)[0]) for process in running]
    assert sum(counts) == 12


def test_a_process_that_lacks_nothing_takes_no_lock(backbone, tmp_path, monkeypatch):
    feature_set(backbone, tmp_path).extract(progress=False)

    def taken(*_):
        raise AssertionError("the cache was locked")

    monkeypatch.setattr(features, "locked", taken)
    assert feature_set(backbone, tmp_path).extract(progress=False).computed == 0
    with pytest.raises(AssertionError, match="locked"):
        feature_set(backbone, tmp_path, 7).extract(progress=False)


def test_temporary_files_count_and_those_of_the_dead_go(backbone, tmp_path):
    data = feature_set(backbone, tmp_path).extract(progress=False)
    size = sum(data.cache.path(key).stat().st_size for key in data.keys)
    living = data.cache.path(data.keys[0]).with_name(f".x.safetensors.{os.getpid()}.1")
    dead = living.with_name(f".x.safetensors.{2**22 + 1}.1")
    for path in (living, dead):
        path.write_bytes(bytes(1000))
    assert FeatureCache(tmp_path, limit=size + 1000).evict() == 0
    assert (living.exists(), dead.exists()) == (True, False)
    assert FeatureCache(tmp_path, limit=size).evict() > 0


def test_a_job_larger_than_the_cache_is_refused(backbone, tmp_path):
    with pytest.raises(ValueError, match=r"take 0\.01 GB.* set LABKIT_CACHE_GB=0\.01 or more"):
        feature_set(backbone, tmp_path, 6, limit=10_000).extract(progress=False)


def test_what_the_job_needs_stays_and_the_rest_makes_room(backbone, tmp_path):
    other = feature_set(backbone, tmp_path).extract(progress=False)
    size = other.cache.path(other.keys[0]).stat().st_size
    cache = FeatureCache(tmp_path, limit=size * 6)
    mine = FeatureSet(samples(8)[6:], backbone, NEEDS, cache).extract(progress=False)
    both = [FeatureSet(samples(6)[:3], backbone, NEEDS, cache).extract(progress=False), mine]
    assert all(cache.path(key).exists() for one in both for key in one.keys)
    assert sum(path.stat().st_size for path in cache.folder.glob("*/*")) <= cache.limit


@pytest.mark.parametrize("text", ["abc", "inf", "nan", "-1", "0", "1e400", "1e305", ""])
def test_a_limit_that_is_none_is_named(monkeypatch, text):
    monkeypatch.setenv("LABKIT_CACHE_GB", text)
    with pytest.raises(ValueError, match=f"LABKIT_CACHE_GB is '{text}'; it takes a number of GB"):
        FeatureCache()
