"""An opened config: what training, studies, forecasts, explore and the app derive from it."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch

from labkit import methods
from labkit.core.config import Config
from labkit.core.devices import device_of
from labkit.core.records import Dataset, Sample, Shapes
from labkit.data import catalogue, splits
from labkit.data.entry import data_root
from labkit.features import backbones
from labkit.features.backbones import Backbone
from labkit.features.cache import DefectSet, FeatureCache, FeatureSet
from labkit.methods.base import Method
from labkit.training.stages import FreshDefects

PARTS = ("train", "calibration", "test")


class Experiment:
    """A config with its backbone, split, features, synthetic defects and hashes.

    Each is opened when it is first asked for, and once.

    >>> opened = Experiment.of("dnfad", "procedural/gear", "quick", overrides={"limit": 2})
    >>> opened.counts
    {'n_train': 2, 'n_calibration': 2, 'n_test_good': 2, 'n_test_bad': 12}

    Args: config: the specs; root: folder that holds downloaded data sets;
          backbone: one that is loaded already, instead of the config's.
    """

    def __init__(
        self, config: Config, root: Path | str | None = None, backbone: Backbone | None = None
    ):
        self.config, self.root = config, root
        self.method_class: type[Method] = methods.get(config.method)
        self.needs = self.method_class.reads(config.flow)
        self._features: dict[str, FeatureSet] = {}
        self._cache = FeatureCache()  # one for all its sets: none evicts what another needs
        if backbone is not None:
            self.backbone = backbone

    @classmethod
    def of(
        cls,
        method: str,
        data: str,
        budget: str = "laptop",
        seed: int = 0,
        root: Path | str | None = None,
        overrides: dict[str, Any] | None = None,
    ) -> "Experiment":
        """An experiment by names, as `labkit.train` takes them.

        Raises: ValueError for a name, key or value that labkit does not know.
        """
        stored = catalogue.stored_name(data)
        return cls(methods.resolve(method, stored, budget, seed, overrides), root)

    @cached_property
    def backbone(self) -> Backbone:
        """The frozen network of the config, on the config's device.

        Raises: ValueError if this machine has no such device.
        """
        spec, device = self.config.input, device_of(self.config.train.device)
        return backbones.load(spec.backbone, spec.image_size, spec.taps).to(device)

    @property
    def device(self) -> torch.device:
        """Where features, flows and maps are computed: where the backbone is."""
        return self.backbone.mean.device

    @cached_property
    def dataset(self) -> Dataset:
        """The data set of the config, from the catalogue or a folder.

        A white level that is learned from it is in the config from then on.
        """
        spec = self.config.input
        dataset = catalogue.load(self.config.data, self.root, spec.full_scale)
        self.config = replace(self.config, input=replace(spec, full_scale=dataset.full_scale))
        return dataset

    @cached_property
    def parts(self) -> dict[str, list[Sample]]:
        """The images to train on, to calibrate with, to test on and for validation.

        Of the last there are none by default; see `splits.split`.
        """
        return splits.split(self.dataset, self.config.split, self.config.seed)

    @property
    def folds(self) -> list[splits.Fold]:
        """Those of a cross-conformal calibration; none where some normals are held out."""
        count = splits.fold_count(self.dataset, self.config.split)
        return splits.folds(self.parts["calibration"], count)

    @property
    def samples(self) -> list[Sample]:
        """The images of all parts, each once."""
        return list({s.key: s for part in self.parts.values() for s in part}.values())

    @property
    def counts(self) -> dict[str, int]:
        """Number of images of each part."""
        bad = sum(sample.label for sample in self.parts["test"])
        return {
            "n_train": len(self.parts["train"]),
            "n_calibration": len(self.parts["calibration"]),
            "n_test_good": len(self.parts["test"]) - bad,
            "n_test_bad": bad,
        } | ({"n_validation": len(aside)} if (aside := self.parts["validation"]) else {})

    @cached_property
    def data_hash(self) -> str:
        """Changes exactly when an image or its part does."""
        digest = hashlib.sha256(f"{len(self.folds)} folds\n".encode() if self.folds else b"")
        for name, samples in self.parts.items():
            for sample in samples:
                digest.update(f"{name}:{sample.key}:{sample.fingerprint()}\n".encode())
        return digest.hexdigest()

    @property
    def hash(self) -> str:
        """Names the experiment: config, data and the backbone's weights."""
        _ = self.dataset, self.backbone  # what is missing is said before any image is read
        return self.config.digest(self.data_hash, self.backbone.weights)

    @property
    def shapes(self) -> Shapes:
        """Sizes of one image's features."""
        return self.backbone.shapes(self.needs)

    @property
    def stored_root(self) -> str | None:
        """The folder of data sets that a later process needs to find the images again."""
        entry = catalogue.table().get(self.config.data)
        return str(data_root(self.root).resolve()) if entry and entry.source else None

    def features(self, part: str, progress: bool = True) -> FeatureSet:
        """The features of a part, computed on first need.

        Args: part: one of `train`, `calibration`, `test`, `validation`.
        """
        if part not in self._features:
            chosen = self.feature_set(self.parts[part], part == "train")
            self._features[part] = chosen.extract(f"{part} images", progress)
        return self._features[part]

    def feature_sets(self, progress: bool = True) -> dict[str, FeatureSet]:
        """The features of every part."""
        return {part: self.features(part, progress) for part in PARTS}

    def feature_set(self, samples: Sequence[Sample], training: bool = False) -> FeatureSet:
        """The features of any images, to train on or to score; nothing computed yet."""
        needs = self.method_class.reads(self.config.flow, training)
        return FeatureSet(samples, self.backbone, needs, self._cache)

    def synthetic_defects(
        self, normals: Sequence[Sample] | None = None, progress: bool = True
    ) -> Callable[[int], DefectSet] | None:
        """The synthetic defects of each epoch, painted on training normals; None without any.

        One bank per seed serves all epochs; with `fresh` each step sees its own, never stored.

        Args: normals: to paint on, instead of all training images.
        """
        spec = self.config
        normals = self.parts["train"] if normals is None else normals

        def painted(seed: int) -> Sequence[Sample]:
            return self.method_class.synthetic_defects(
                spec.flow, normals, seed, data=spec.data, size=self.backbone.image_size
            )

        def defects(seed: int) -> DefectSet:
            features = DefectSet(painted(seed), self.backbone, self.needs, self._cache)
            return features.extract("synthetic defects", progress)

        if not (self.needs.synthetic and painted(spec.seed)):
            return None
        if not spec.flow.fresh:
            return partial(_same_every_epoch, defects(spec.seed))
        if spec.train.devices > 1:
            raise ValueError("Fresh defects are made on one device; set devices=1 or fresh=false.")
        each = partial(FreshDefects, backbone=self.backbone, needs=self.needs)
        return lambda epoch: each(painted(spec.seed * 100_003 + epoch))

    def build(self) -> Method:
        """The method with the initial weights of its seed, on the experiment's device."""
        return methods.build(self.config, self.shapes).to(self.device)


def _same_every_epoch(defects: DefectSet, epoch: int) -> DefectSet:
    return defects
