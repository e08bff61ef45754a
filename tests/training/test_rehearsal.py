"""Every paper's preset from files to numbers: its data set's layout, a checkpoint, one step.

Here at a smaller width. At the papers' own size, one test after the other (memory and seconds are
printed; two CPU cores take minutes for each, selfsup's CaiT many more):

    pytest -m heavy -s tests/training/test_rehearsal.py
"""

import math
import resource
import time

import layouts
import pytest
import timm
import torch
from safetensors.torch import save_file
from test_semantic import archives, jpeg
from test_video import campus  # noqa: F401  (a fixture)

import labkit
from labkit import methods
from labkit.features import alexnet  # noqa: F401, timm knows it from then on

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*differs from what is published"),
    pytest.mark.filterwarnings("ignore:.*does not see all of an image"),
]
SMALL = {  # of each flow: a network of the same family, and what else makes it small
    "dnfad": {"backbone": "vit_tiny_patch16_224.augreg_in21k", "image_size": 64, "blocks": 2},
    "dadf": {"backbone": "resnet18.tv_in1k", "image_size": 64, "blocks": 2, "embed": 32,
             "depth": 1, "reconstruction_epochs": 1},
    "sanf": {"backbone": "vit_tiny_patch16_384.augreg_in21k_ft_in1k", "image_size": 64},
    "sanflow": {"backbone": "resnet18.tv_in1k", "image_size": 64, "blocks": 2, "position": 32},
    "selfsup": {"backbone": "cait_xxs24_224.fb_dist_in1k", "image_size": 224, "taps": "20"},
    "cflow": {"backbone": "resnet18.tv_in1k", "image_size": 64, "blocks": 2},
    "fastflow": {"backbone": "resnet18.tv_in1k", "image_size": 64, "blocks": 2},
    "csflow": {"backbone": "tf_efficientnet_b0.aa_in1k", "image_size": 128, "hidden": 32},
    "differnet": {"image_size": 256, "hidden": 64, "rotations": 4, "turns": 2, "test_turns": 2},
}  # fmt: skip
DATA = {  # of each flow: data sets of its paper; each layout is there at least once
    "dnfad": ["mvtec_ad/bottle", "btad/01", "mpdd/tubes"],
    "dadf": ["mvtec_loco/pushpins"],
    "sanf": ["cifar10/frog", "cifar100/fish", "stl10/cat", "cats_vs_dogs/cat", "lbot"],
    "sanflow": ["stc/01", "visa/pcb1"],
    "selfsup": ["dagm/Class10", "btad/03"],
    "cflow": ["stc/01"],
    "fastflow": ["mvtec_ad/grid"],
    "csflow": ["mvtec_ad/bottle"],
    "differnet": ["mvtec_ad/grid"],
}
WITHOUT_MASKS = ("cifar10", "cifar100", "stl10", "cats_vs_dogs", "lbot")
LEAST = {"limit": 2, "epochs": 1, "calibration_min": 1}


def cats_vs_dogs(folder):
    """Two cats to train on and one of each to test."""
    for name, numbers in {"Cat": (0, 1, 2, 10_000), "Dog": (10_000,)}.items():
        for k in numbers:
            jpeg(folder / "cats_vs_dogs" / "PetImages" / name / f"{k}.jpg", k + len(name))


@pytest.fixture
def place(campus, monkeypatch):  # noqa: F811
    """A folder of every data set, as its authors lay it out."""
    folder = campus.parent  # STC is there
    archives(folder, monkeypatch, times=2)
    writers = (layouts.mvtec_ad, layouts.mvtec_loco, layouts.btad, layouts.mpdd, layouts.visa,
               layouts.dagm, layouts.lbot, cats_vs_dogs)  # fmt: skip
    for write in writers:
        write(folder)
    return folder


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A file of random weights as timm would save a tag's."""
    folder = tmp_path_factory.mktemp("weights")

    def saved(tag):
        path = folder / f"{tag}.safetensors"
        if not path.exists():
            torch.manual_seed(0)
            save_file(timm.create_model(tag, pretrained=False).state_dict(), path)
        return str(path)

    return saved


def rehearse(name, data, place, checkpoint, folder, **smaller):
    """Train one step, calibrate and evaluate; what comes out is finite and complete."""
    planned = methods.resolve(name, data, "paper")
    tag = smaller.pop("backbone", planned.input.backbone)
    changes = LEAST | smaller | {"backbone": checkpoint(tag)}
    run = labkit.train(name, data, "paper", 0, folder, False, root=place, **changes)
    assert run.history["loss"].map(math.isfinite).all()
    assert run.scores["score"].map(math.isfinite).all()
    assert set(run.scores["split"]) == {"calibration", "test"}
    expected = {"image_auroc"}
    if data.split("/")[0] not in WITHOUT_MASKS and run.detector.localises:
        expected |= {"pixel_auroc", "aupro"}
    if data.startswith("mvtec_loco"):
        expected |= {"au_spro_mean"}
    assert all(0 <= run.info["metrics"][metric] <= 1 for metric in expected)
    kept = {key: value for key, value in vars(planned.flow).items() if key not in changes}
    assert kept == {key: getattr(run.config.flow, key) for key in kept}


PAIRS = [(name, data) for name, every in DATA.items() for data in every]


@pytest.mark.parametrize(("name", "data"), PAIRS)
def test_each_papers_experiment_ends_with_numbers(name, data, place, checkpoint, tmp_path):
    rehearse(name, data, place, checkpoint, tmp_path / "run", **SMALL[name])


@pytest.mark.heavy
@pytest.mark.parametrize("name", DATA)
def test_at_the_papers_size_it_fits_in_24_gib(name, place, checkpoint, tmp_path):
    started = time.monotonic()
    epochs = {"reconstruction_epochs": 1} if name == "dadf" else {}
    data = DATA[name][-1]
    rehearse(name, data, place, checkpoint, tmp_path / "run", limit=2, **epochs)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"\n{name} on {data}: {peak:.1f} GiB, {time.monotonic() - started:.0f} s")
    assert peak < 24
