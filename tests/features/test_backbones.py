"""Backbones report their own sizes; CNNs and transformers keep one contract."""

import socket
import time
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import timm
import torch
from huggingface_hub import constants
from safetensors.torch import save_file
from torchvision.models import AlexNet_Weights

from labkit.core.records import Needs
from labkit.features import backbones, hub

ALL = Needs(pyramid=True, token=True, patches=True)
CNNS = ["random/resnet18", "random/efficientnet_b0", "random/convnext_atto"]
TRANSFORMERS = ["random/vit_tiny_patch16_224", "random/cait_xxs24_224"]
HALF = {"rtol": 1e-3, "atol": 1e-5}  # features are rounded to half precision


@pytest.mark.parametrize("name", [*CNNS, *TRANSFORMERS, "efficientnet_lite0"])
def test_features_have_the_sizes_that_are_reported(name):
    backbone = backbones.load(name, 96)
    shapes = backbone.shapes(ALL)
    out = backbone(torch.rand(2, 3, 96, 96), ALL)
    assert [tuple(level.shape[1:]) for level in out.pyramid] == list(shapes.pyramid)
    assert out.token.shape == (2, shapes.token)
    assert out.patches.shape == (2, *shapes.patches)
    strides = [backbone.model.feature_info[tap]["reduction"] for tap in backbone.taps]
    assert [level.shape[-1] for level in out.pyramid] == [96 // stride for stride in strides]


@pytest.mark.parametrize("name", [*CNNS, *TRANSFORMERS])
def test_only_what_is_needed_is_computed(name):
    backbone = backbones.load(name, 96)
    images = torch.rand(1, 3, 96, 96)
    whole = backbone(images, ALL)
    pyramid = backbone(images, Needs(pyramid=True))
    token = backbone(images, Needs(token=True))
    assert list(token.parts()) == ["token"]
    for part, tensor in (pyramid.parts() | token.parts()).items():
        torch.testing.assert_close(tensor, whole.parts()[part])


@pytest.mark.parametrize("side", [64, 256])
@pytest.mark.parametrize("name", ["random/resnet18", "random/vit_tiny_patch16_224"])
def test_features_do_not_depend_on_the_batch_to_the_bit(name, side):
    backbone, images = backbones.load(name, side), torch.rand(3, 3, side, side)
    many = backbone(images, ALL).parts()
    for k in range(3):
        for part, tensor in backbone(images[k : k + 1], ALL).parts().items():
            assert torch.equal(many[part][k : k + 1], tensor)
            assert torch.equal(tensor.half().float(), tensor)


@pytest.mark.parametrize(
    ("name", "side", "taken"),
    [
        ("random/vit_small_patch14_dinov2", 256, 252),
        ("random/vit_small_patch14_dinov2", 128, 126),
        ("random/eva02_tiny_patch14_224", 265, 266),
        ("random/vit_tiny_patch16_224", 100, 96),
    ],
)
def test_a_transformer_sees_the_whole_image(name, side, taken):
    with pytest.warns(UserWarning, match=f"all of an image at image_size={side}; {taken} is tak"):
        backbone = backbones.load(name, side)
    needs = Needs(pyramid=True)
    assert backbone.image_size == taken
    assert backbone.shapes(needs).image == (taken, taken)
    image = torch.rand(1, 3, taken, taken)
    features = backbone(image, needs).pyramid[0]
    for edge in (np.s_[..., -1:], np.s_[..., -1:, :]):
        other = image.clone()
        other[edge] = 1 - other[edge]
        assert (backbone(other, needs).pyramid[0] - features).abs().max() > 0.01


def test_an_old_run_keeps_its_image_size():
    assert backbones.load("random/vit_tiny_patch16_224", 100, rounded=False).image_size == 100


def test_a_cnns_token_is_its_mean_patch():
    out = backbones.load("random/resnet18", 96)(torch.rand(2, 3, 96, 96), ALL)
    torch.testing.assert_close(out.token, out.patches.mean(1), **HALF)


def test_a_transformers_token_is_timms_class_token():
    backbone = backbones.load("random/vit_tiny_patch16_224", 96)
    images = torch.rand(2, 3, 96, 96)
    expected = backbone.model.forward_features((images - backbone.mean) / backbone.std)
    out = backbone(images, ALL)
    torch.testing.assert_close(out.token, expected[:, 0], **HALF)
    torch.testing.assert_close(out.patches, expected[:, 1:], **HALF)


def test_default_taps():
    assert backbones.load("efficientnet_lite0", 64).taps == (2, 3)
    vit = backbones.load("random/vit_tiny_patch16_224", 64)
    assert vit.taps == (7,)  # index 7 of 12, as DNFAD's code
    image = torch.rand(1, 3, 64, 64)
    blocks = vit.model.forward_intermediates(
        (image - vit.mean) / vit.std, indices=[7], norm=True, intermediates_only=True
    )
    torch.testing.assert_close(vit(image, Needs(pyramid=True)).pyramid[0], blocks[0], **HALF)


def test_offline_weights_are_the_packages():
    model = backbones.load("efficientnet_lite0", 64, fold=False).model
    reference = timm.create_model("tf_efficientnet_lite0")
    assert [p.shape for p in model.parameters()] == [p.shape for p in reference.parameters()]
    assert (backbones.load("efficientnet_lite0", 64).mean == 0.5).all()
    assert model.conv_stem.weight.std() > 0.1  # random initialisation has 0.06


def test_a_local_file_is_read_and_hashed(tmp_path):
    torch.manual_seed(3)
    model = timm.create_model("resnet18")
    path = tmp_path / "resnet18.mine.safetensors"
    save_file(model.state_dict(), path)
    backbone = backbones.load(str(path), 64)
    unfolded = backbones.load(str(path), 64, fold=False)
    torch.testing.assert_close(unfolded.model.conv1.weight, model.conv1.weight)
    needs = Needs(pyramid=True)
    assert backbone.fingerprint(needs) != backbones.load("random/resnet18", 64).fingerprint(needs)
    assert backbone.fingerprint(needs) == backbones.load(str(path), 64).fingerprint(needs)
    assert backbone.fingerprint(needs) != backbones.load(str(path), 96).fingerprint(needs)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("resnet81", "did you mean 'resnet18'"),
        ("efficientnet_lite00", "did you mean 'efficientnet_lite0'"),
        ("nowhere.safetensors", "There is no weight file nowhere.safetensors"),
        ("random/resnet19", "Unknown backbone"),
        ("resnet18.safetensors", "does not hold the weights of resnet18"),
        ("my_model.pth", "name it after a timm model"),
    ],
)
def test_unknown_names_and_files_are_one_sentence(tmp_path, monkeypatch, name, sentence):
    monkeypatch.chdir(tmp_path)
    for file in ("resnet18.safetensors", "my_model.pth"):
        (tmp_path / file).write_bytes(b"not weights")
    with pytest.raises(ValueError, match=sentence):
        backbones.load(name, 64)


@pytest.fixture
def silent_hub(monkeypatch, tmp_path):
    """The address of a hub that takes connections and answers none; caches are empty."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with socket.create_server(("127.0.0.1", 0)) as listening:
        address = f"http://127.0.0.1:{listening.getsockname()[1]}"
        template = address + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "ENDPOINT", address)
        alexnet = AlexNet_Weights.IMAGENET1K_V1.url
        cfgs = timm.models._registry._model_pretrained_cfgs
        own = replace(cfgs["alexnet.tv_in1k"], url=f"{address}/{alexnet.rpartition('/')[2]}")
        monkeypatch.setitem(cfgs, "alexnet.tv_in1k", own)
        yield address


@pytest.mark.parametrize("name", ["cait_m48_448.fb_dist_in1k", "alexnet.tv_in1k"])
def test_a_silent_hub_is_one_sentence_within_five_seconds(silent_hub, monkeypatch, name):
    monkeypatch.setattr(hub, "time", SimpleNamespace(monotonic=lambda: 0.0))  # in one minute
    started = time.monotonic()
    sentence = rf"no answer in 3 s; .*file {name}\.safetensors .*efficientnet_lite0"
    with pytest.raises(ValueError, match=sentence):
        backbones.load(name, 448)
    assert time.monotonic() - started < 5
    with pytest.raises(ValueError, match=sentence):
        backbones.load(name, 448)  # the next one of a study does not wait again
    assert time.monotonic() - started < 5


def test_a_hub_that_refuses_or_fails_is_one_sentence(silent_hub, monkeypatch):
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", "http://127.0.0.1:9/{filename}")
    with pytest.raises(ValueError, match=r"could not be fetched .*resnet18.tv_in1k.safetensors"):
        backbones.load("resnet18.tv_in1k", 64)


@pytest.mark.parametrize("name", ["resnet18.tv_in1k", "vit_tiny_patch16_224.augreg_in21k"])
def test_weights_that_were_fetched_before_take_no_request(silent_hub, tmp_path, monkeypatch, name):
    source = timm.get_pretrained_cfg(name)
    folder = tmp_path / f"models--{source.hf_hub_id.replace('/', '--')}"
    path = folder / "snapshots" / "c0ffee" / hub.FILE
    path.parent.mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("c0ffee")
    model = timm.create_model(name)
    save_file(model.state_dict(), path)

    def request(*args, **options):
        raise AssertionError("a request")

    monkeypatch.setattr(socket.socket, "connect", request)
    loaded = backbones.load(name, 224, fold=False).model.state_dict()
    assert all(torch.equal(value, model.state_dict()[key]) for key, value in loaded.items())


def test_a_tap_that_is_not_there():
    with pytest.raises(ValueError, match="taps 0 to 4; there is no tap 7"):
        backbones.load("random/resnet18", 64, taps=(2, 7))


def test_turned_copies_are_pooled_at_three_sizes():
    backbone = backbones.load("random/resnet18", 128)
    images = torch.rand(2, 3, 128, 128, generator=torch.Generator().manual_seed(0))
    turned = backbone(images, Needs(rotations=4)).rotated
    assert turned.shape == (2, 4, 3 * 512)
    assert backbone.shapes(Needs(rotations=4)).rotated == (4, 3 * 512)
    token = backbone(images, Needs(token=True)).token
    torch.testing.assert_close(turned[:, 0, :512], token, rtol=1e-3, atol=1e-4)
    upright = backbone(images.rot90(1, (2, 3)), Needs(rotations=4)).rotated  # 90 degrees further
    torch.testing.assert_close(upright[:, 0], turned[:, 1], rtol=1e-3, atol=1e-3)


def test_the_image_at_several_sizes_is_the_last_tap_of_each():
    backbone = backbones.load("random/resnet18", 128, taps=(1, 2))
    images = torch.rand(2, 3, 128, 128, generator=torch.Generator().manual_seed(0))
    needs = Needs(pyramid=True, scales=3)
    found = backbone(images, needs).pyramid
    assert [level.shape[1:] for level in found] == [(128, 16, 16), (128, 8, 8), (128, 4, 4)]
    assert backbone.shapes(needs).pyramid == tuple(tuple(level.shape[1:]) for level in found)
    for k, level in enumerate(found):
        alone = backbone(images[..., :: 2**k, :: 2**k], Needs(pyramid=True)).pyramid[1]
        torch.testing.assert_close(level, alone, rtol=1e-4, atol=1e-5)
    more = backbone(images, Needs(pyramid=True, token=True, scales=3))
    torch.testing.assert_close(more.pyramid[0], found[0], rtol=1e-4, atol=1e-5)
    assert more.token.shape == (2, 512)


def test_rotations_and_sizes_have_keys_of_their_own_and_one_keeps_the_old():
    backbone = backbones.load("random/resnet18", 128)
    several = [{"rotations": 2}, {"rotations": 4}, {"scales": 2}, {"scales": 3}, {}]
    assert len({backbone.fingerprint(Needs(token=True, **more)) for more in several}) == 5
    assert repr(Needs(scales=3)) == repr(Needs())  # what the keys of one size are made of


@pytest.mark.parametrize(
    ("name", "side", "needs", "words"),
    [
        ("resnet18", 64, Needs(rotations=4), "convolutional network and image_size="),
        ("vit_tiny_patch16_224", 128, Needs(rotations=4), "convolutional network and image_size="),
        ("resnet18", 40, Needs(pyramid=True, scales=3), "its stride and 4 divide; got random/"),
        ("vit_tiny_patch16_224", 128, Needs(pyramid=True, scales=3), "stride and 4 divide; got"),
    ],
)
def test_what_cannot_be_rotated_or_halved_is_named(name, side, needs, words):
    with pytest.raises(ValueError, match=words):
        backbones.load(f"random/{name}", side)(torch.zeros(1, 3, side, side), needs)


def test_stages_of_an_efficientnet_that_timm_leaves_out_are_further_taps():
    backbone = backbones.load("random/tf_efficientnet_b0", 64, taps=(6, 3))
    image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    found = backbone(image, Needs(pyramid=True)).pyramid
    assert [tuple(level.shape[1:]) for level in found] == [(192, 2, 2), (112, 4, 4)]
    last = backbone.model.blocks[6](found[0])
    tapped = backbones.load("random/tf_efficientnet_b0", 64, taps=(4,))
    torch.testing.assert_close(tapped(image, Needs(pyramid=True)).pyramid[0], last)
    with pytest.raises(ValueError, match="taps 0 to 6; there is no tap 7"):
        backbones.load("random/tf_efficientnet_b0", 64, taps=(7,))
