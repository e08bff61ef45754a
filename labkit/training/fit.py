"""One fit loop for all methods, on Lightning Fabric: CPU, CUDA, bf16, several processes.

The order of images is a function of (seed, epoch), the rate one of the step, so a run resumed
from its last epoch goes on as if it had never stopped, to the bit on a CPU.
"""

import copy
import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import zip_longest
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from lightning_fabric import Fabric
from lightning_fabric.wrappers import _FabricOptimizer
from torch import Tensor, nn
from torch.multiprocessing import ProcessExitedException, ProcessRaisedException
from tqdm.auto import tqdm

from labkit.core.config import TrainSpec
from labkit.core.devices import ahead, device_of, is_apart, moved
from labkit.core.records import Batch, Features
from labkit.features.cache import DefectSet, FeatureSet
from labkit.methods.base import Method, Stage
from labkit.training.checkpoints import (
    BEST,
    History,
    State,
    best_epoch,
    load_checkpoint,
    save_checkpoint,
)
from labkit.training.likelihood import likelihood
from labkit.training.stages import Kept, Stopped, check_stopped, flipped, learning_rate, noisy

UNSTABLE = (
    "{} not finite in epoch {}{}; lower the rate (now lr={:.2g}) or the clamp. "
    "The last whole epoch is kept."
)
TOO_LARGE = (
    "The GPU's memory does not hold a step of batch={} images; give a smaller batch, or "
    "precision=bf16-mixed."
)
UNGUARDED = (
    "Each process of a training on several devices first runs the script that starts it; put the "
    'script\'s calls below `if __name__ == "__main__":`, or set devices=1.'
)


def fit(
    method: Method,
    data: FeatureSet,
    spec: TrainSpec,
    seed: int = 0,
    folder: Path | None = None,
    progress: bool = True,
    on_epoch: Callable[[History], None] | None = None,
    defects: Callable[[int], DefectSet] | None = None,
    stages: Sequence[Stage] | None = None,
    stop: Callable[[], bool] | None = None,
    watched: Mapping[str, FeatureSet] | None = None,
) -> History:
    """Train a method on cached features of normal images; returns one row an epoch.

    A method of several stages has an optimiser for each; epochs are counted through all of them
    and a row names its stage. A method without parameters takes what it needs and has no epochs.

    Args:   folder: where the checkpoint of each epoch goes; one that lies there is resumed.
            Without one a checkpoint is kept only as long as it is needed.
            on_epoch: called with the history after each epoch; an exception from it stops.
            defects: the synthetic defects of an epoch, counted from 0; all of them are spread
            over its steps, beside the `batch` normal images of each.
            stages: instead of the method's own.
            stop: asked before each step, on one device and with a folder; once true, training
            ends with the last whole epoch.
            watched: sets whose likelihood is in the row of each epoch, see `likelihood`; with
            `early_stopping` the weights are kept of the epoch, of all that run, at which that of
            the set `validation` is best, and the history says which (`kept`).
    Raises: ValueError if a loss or a weight is not finite (the last epoch's checkpoint stays),
            `devices` asks for more than the machine has, a method's steps cannot be shared, or
            it was stopped before the last stage had an epoch.
    """
    if not any(parameter.requires_grad for parameter in method.parameters()):
        method.fit_statistics(data.batches())
        method.eval().fit_score(data.batches())
        return []
    several, device = spec.devices > 1, device_of(spec.device)
    if folder is None and (several or (spec.early_stopping and watched)):
        with TemporaryDirectory() as scratch:  # workers' weights, or the best epoch's, lie there
            place = Path(scratch)
            return fit(
                method, data, spec, seed, place, progress, on_epoch, defects, stages, stop, watched
            )
    if several and method.takes_microbatches:
        raise ValueError("Several steps a batch train on one device; set devices=1.")
    try:
        fabric = Fabric(
            accelerator=device.type,
            devices=spec.devices if several or device.index is None else [device.index],
            strategy="ddp_spawn" if several else "auto",
            precision=spec.precision,
        )
    except (RuntimeError, ValueError) as error:
        raise ValueError(f"This machine cannot train so: {str(error).splitlines()[0]}") from None
    stages = method.stages(method.spec, spec) if stages is None else stages
    options = (progress, on_epoch, defects, stop, watched or {})
    training = Training(method, data, stages, seed, folder, *options)
    if not several:
        return training.run(fabric)
    try:
        fabric.launch(training.run)  # worker 0's weights come by its checkpoint
    except ProcessRaisedException as error:
        name, _, message = str(error).strip().splitlines()[-1].partition(": ")
        if name != "ValueError":
            raise
        raise ValueError(message) from None
    except ProcessExitedException as error:
        raise ValueError(UNGUARDED if error.exit_code == 1 else str(error)) from None
    return load_checkpoint(folder, method)[0]


@dataclass
class Training:
    """What `fit` was given, and on a device the stage that it is in.

    stage, start     the stage and its first epoch of all; `inputs`, what its steps are given
    model, part      the method as Fabric wraps it, and the module that the stage trains
    """

    method: Method
    data: FeatureSet | Kept  # on a GPU kept there, if it fits
    stages: Sequence[Stage]
    seed: int
    folder: Path | None = None
    progress: bool = False
    on_epoch: Callable[[History], None] | None = None
    defects: Callable[[int], DefectSet] | None = None
    stop: Callable[[], bool] | None = None
    watched: Mapping[str, FeatureSet] = field(default_factory=dict)

    def run(self, fabric: Fabric) -> History:
        """Every stage, from where the checkpoint stands; then the constants of the score."""
        if fabric.world_size > 1:  # workers get the tensors of a CPU as one memory, not as copies
            self.method = copy.deepcopy(self.method)
        self.fabric, method, folder = fabric, self.method, self.folder
        history, state = load_checkpoint(folder, method) if folder else ([], {})
        method.to(fabric.device)
        if is_apart(fabric.device):
            self.data = Kept(self.data, fabric.device)
        if not history:
            method.fit_statistics(self._normals())
        free = [p for p in method.parameters() if p.requires_grad]
        optimizer, self.start = None, 0
        for stage in self.stages:
            end = self.start + stage.train.epochs
            if len(history) < end:
                self.stage, self.part = stage, method.get_submodule(stage.part)
                mine = {id(p) for p in self.part.parameters()}
                for parameter in free:
                    parameter.requires_grad_(id(parameter) in mine)
                try:
                    optimizer = self._train(history, state if len(history) > self.start else {})
                except Stopped:
                    history, _ = load_checkpoint(folder, method)
                    check_stopped(len(history), self.stages)
                    break
            self.start = end
        for parameter in free:
            parameter.requires_grad_(True)
        fabric.barrier()
        if folder and (folder / BEST).is_dir():
            kept = len(load_checkpoint(folder / BEST, method)[0])
            history[:] = [row | {"kept": row["epoch"] == kept} for row in history]
        method.eval()
        with torch.no_grad():
            method.fit_score(self._normals())
        if folder and fabric.world_size > 1 and fabric.global_rank == 0:
            save_checkpoint(folder, method, optimizer, history)
        return history

    def _train(self, history: History, state: State) -> _FabricOptimizer:
        """The epochs of a stage that are still to do, in `history`; returns its optimiser.

        Args: state: of its optimiser, if it resumes.
        """
        fabric, stage, spec, method = self.fabric, self.stage, self.stage.train, self.method
        optimizer_class = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[spec.optimizer]
        rates = {"lr": spec.lr, "betas": spec.betas, "eps": spec.eps}
        optimizer = optimizer_class(
            self.part.parameters(), weight_decay=spec.weight_decay, **rates
        )
        self.model, optimizer = fabric.setup(method, optimizer)
        self.model.mark_forward_method("loss")
        if state:
            optimizer.load_state_dict(optimizer.state_dict() | {"state": state})
        self.inputs: FeatureSet | Kept = self.data
        if stage.keeps:
            change = partial(method.stage_input, stage=stage.name)
            self.inputs = Kept(self.data, fabric.device, change)
        self.steps = math.ceil(len(self.inputs) / spec.batch)  # batches of images per epoch
        count = len(self.stages)
        where = f", stage {self.stages.index(stage) + 1} of {count}: {stage.name}"
        bar = tqdm(
            total=spec.epochs * self.steps,
            initial=(len(history) - self.start) * self.steps,
            desc=f"training{where if count > 1 else ''}",
            unit="step",
            disable=not self.progress or fabric.global_rank > 0,
        )
        with bar:
            for epoch in range(len(history), self.start + spec.epochs):
                self.model.train()
                method.eval()  # what the stage leaves alone
                self.part.train()
                with torch.no_grad():
                    method.on_epoch_start(epoch, self._normals())
                try:
                    history.append(self._epoch(optimizer, epoch, bar))
                except torch.cuda.OutOfMemoryError:
                    raise ValueError(TOO_LARGE.format(spec.batch)) from None
                if fabric.global_rank == 0:
                    history[-1] |= likelihood(method, self.watched, fabric.device)
                    if spec.early_stopping and best_epoch(history) == len(history):
                        save_checkpoint(self.folder / BEST, method, None, history)
                    if self.folder:
                        save_checkpoint(self.folder, method, optimizer, history)
                    if self.on_epoch:
                        self.on_epoch(history)
        return optimizer

    def _epoch(self, optimizer: _FabricOptimizer, epoch: int, bar: tqdm) -> dict[str, Any]:
        """One pass over the images; returns its row of the history.

        Raises: ValueError if a loss or a weight is not finite.
        """
        method = self.method
        started, totals, looks = time.perf_counter(), Counter(), Counter()
        batches = self._batches(epoch)
        if is_apart(self.fabric.device):
            batches = ahead(batches)
        for step, (features, batch) in enumerate(batches):
            if self.stop and self.stop():
                raise Stopped
            done = (epoch - self.start) * self.steps + step
            rate = learning_rate(self.stage.train, done, self.steps)
            for group in optimizer.param_groups:
                group["lr"] = rate
            seed = ((self.seed * 100_003 + epoch) * 100_003 + step) % 2**64
            generator = torch.Generator().manual_seed(seed)
            if getattr(method.spec, "feature_flip", False):
                features, batch = flipped(features, batch, generator)
            with noisy(method, seed + 1 + self.fabric.global_rank):
                for part, part_batch in method.microbatches(features, batch, generator):
                    losses = self.model.loss(part, part_batch)
                    loss = _objective(losses, method)
                    if not torch.isfinite(loss):
                        terms = (f"{name} = {x.item():.4g}" for name, x in losses.items())
                        place = f", step {step + 1} ({', '.join(terms)})"
                        raise ValueError(UNSTABLE.format("The loss is", epoch + 1, place, rate))
                    self._step(optimizer, loss)
                    sizes = {name: x.item() * len(part) for name, x in losses.items()}
                    totals.update(sizes)
                    looks.update(dict.fromkeys(losses, len(part)))
            means = {name: total / looks[name] for name, total in totals.items()}
            whole = _objective(means, method)
            bar.set_postfix(loss=f"{whole:.3f}", refresh=False)
            bar.update()
        if not all(parameter.isfinite().all() for parameter in self.part.parameters()):
            raise ValueError(UNSTABLE.format("The weights are", epoch + 1, "", rate))
        row = {"epoch": epoch + 1} | ({"stage": self.stage.name} if self.stage.name else {})
        seconds = time.perf_counter() - started
        return row | means | {"loss": whole, "lr": rate, "seconds": seconds}

    def _step(self, optimizer: _FabricOptimizer, loss: Tensor) -> None:
        """One step of the optimiser, each group's gradient clipped by itself."""
        clip = self.stage.train.clip
        optimizer.zero_grad()
        self.fabric.backward(loss)
        self.fabric.strategy.precision.unscale_gradients(optimizer.optimizer)  # before clipping
        for group in self.method.clip_groups() if clip else ():
            nn.utils.clip_grad_norm_([p for p in group if p.requires_grad], clip)
        optimizer.step()

    def _normals(self) -> Iterator[Features]:
        """All training normals in order, on the device."""
        for features in self.data.batches():
            yield features.map(lambda t: t.to(self.fabric.device))

    def _batches(self, epoch: int) -> Iterator[tuple[Features, Batch]]:
        """This worker's share of each step: normal images, and after them synthetic defects."""
        fabric, device = self.fabric, self.fabric.device
        bad = self.defects(epoch) if self.defects else None
        good = order(len(self.inputs), self.stage.train.batch, self.seed, epoch)
        extras = (
            defect_order(len(bad), len(self.inputs), len(good), self.seed, epoch) if bad else []
        )
        for indices, extra in zip_longest(good, extras, fillvalue=()):
            parts, mask = [self.inputs.batch(_share(fabric, indices))], None
            label = torch.zeros(len(parts[0]), dtype=torch.int64)
            if bad and extra:
                mine = _share(fabric, extra)
                masks = bad.masks(mine)
                mask = torch.cat([masks.new_zeros(len(label), *masks.shape[1:]), masks])
                parts.append(bad.batch(mine))
                label = torch.cat([label, torch.ones(len(mine), dtype=torch.int64)])
            label, mask = (t if t is None else moved(t, device) for t in (label, mask))
            batch = Batch(label, mask, stage=self.stage.name or None)
            yield Features.join(*(p.map(lambda t: moved(t, device)) for p in parts)), batch


def _objective(terms: dict[str, Any], method: Method) -> Any:
    """The sum of the terms that a method minimises."""
    return sum(value for name, value in terms.items() if name not in method.logged_only)


def _share(fabric: Fabric, indices: Sequence[int]) -> Sequence[int]:
    """Each worker takes every n-th image of a batch.

    If the batch has fewer images than there are workers, the spare ones repeat its first image.
    """
    return indices[fabric.global_rank :: fabric.world_size] or indices[:1]


def order(n: int, batch: int, seed: int, epoch: int) -> list[list[int]]:
    """The batches of an epoch, a fixed function of seed and epoch.

    >>> order(5, 2, seed=0, epoch=0) == order(5, 2, seed=0, epoch=0)
    True
    """
    generator = torch.Generator().manual_seed(seed * 100_003 + epoch)
    shuffled = torch.randperm(n, generator=generator).tolist()
    return [shuffled[start : start + batch] for start in range(0, n, batch)]


def defect_order(bad: int, normals: int, steps: int, seed: int, epoch: int) -> list[list[int]]:
    """The defects of each step of an epoch: of each copy of the normal images equally many.

    SANFlow's copies are the kinds of defects: two normal images meet two of each kind (B.2).

    >>> [sorted(k // 4 for k in step) for step in defect_order(12, 4, 2, seed=0, epoch=0)]
    [[0, 0, 1, 1, 2, 2], [0, 0, 1, 1, 2, 2]]
    """
    copies = 1 if bad % normals else bad // normals
    each = bad // copies
    parts = (order(each, math.ceil(each / steps), seed + 1 + k, epoch) for k in range(copies))
    spread = zip(*parts, strict=True)
    return [[copy * each + k for copy, part in enumerate(step) for k in part] for step in spread]
