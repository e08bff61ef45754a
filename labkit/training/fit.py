"""One fit loop for all methods, on Lightning Fabric: CPU, CUDA, bf16, several processes.

The order of images is a function of (seed, epoch), the rate one of the step, so a run resumed
from its last epoch goes on as if it had never stopped, to the bit on a CPU.
"""

import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from lightning_fabric.wrappers import _FabricModule, _FabricOptimizer
from torch import Tensor, nn
from torch.multiprocessing import ProcessExitedException, ProcessRaisedException
from tqdm.auto import tqdm

from labkit.core.config import TrainSpec
from labkit.core.records import Batch, Features
from labkit.features.cache import DefectSet, FeatureSet
from labkit.methods.base import Method, Stage
from labkit.training.checkpoints import (
    History,
    load_checkpoint,
    restore_optimizer,
    save_checkpoint,
)
from labkit.training.stages import Kept, Stopped, check_stopped, learning_rate

UNSTABLE = (
    "{} not finite in epoch {}{}; lower the rate (now lr={:.2g}) or the clamp. "
    "The last whole epoch is kept."
)
UNGUARDED = (
    "Each process of a training on several devices first runs the script that starts it; put the "
    'script\'s calls below `if __name__ == "__main__":`, or set devices=1.'
)


@dataclass(frozen=True)
class Job:
    """What stays the same in every stage of a training."""

    data: FeatureSet
    stages: Sequence[Stage]
    seed: int
    folder: Path | None
    progress: bool
    on_epoch: Callable[[History], None] | None
    defects: Callable[[int], DefectSet] | None
    stop: Callable[[], bool] | None


@dataclass(frozen=True)
class StageJob:
    """One stage of a job on a device.

    data   what its steps see of the normal images; start, its first epoch of all
    model  the method as Fabric wraps it; part, the module that the stage trains
    """

    fabric: Fabric
    job: Job
    stage: Stage
    data: FeatureSet | Kept
    start: int
    model: _FabricModule
    part: nn.Module
    optimizer: _FabricOptimizer

    @property
    def steps(self) -> int:
        """Batches of images per epoch."""
        return math.ceil(len(self.data) / self.stage.train.batch)


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
) -> History:
    """Train a method on cached features of normal images; returns one row an epoch.

    A method of several stages has an optimiser for each; epochs are counted through all of them
    and a row names its stage. A method without parameters takes what it needs and has no epochs.

    Args:   folder: where the checkpoint of each epoch goes; one that lies there is resumed.
            on_epoch: called with the history after each epoch; an exception from it stops.
            defects: the synthetic defects of an epoch, counted from 0; all of them are spread
            over its steps, beside the `batch` normal images of each.
            stages: instead of the method's own.
            stop: asked before each step, on one device and with a folder; once true, training
            ends with the last whole epoch.
    Raises: ValueError if a loss or a weight is not finite (the last epoch's checkpoint stays),
            `devices` asks for more than the machine has, a method's steps cannot be shared, or
            it was stopped before the last stage had an epoch.
    """
    if not any(parameter.requires_grad for parameter in method.parameters()):
        method.fit_statistics(data.batches())
        method.eval().fit_score(data.batches())
        return []
    several = spec.devices > 1
    if several and folder is None:
        raise ValueError("Training on several devices needs a folder for its checkpoints.")
    if several and method.takes_microbatches:
        raise ValueError("Several steps a batch train on one device; set devices=1.")
    try:
        fabric = Fabric(
            accelerator=accelerator(spec),
            devices=spec.devices,
            strategy="ddp_spawn" if several else "auto",
            precision=spec.precision,
        )
    except (RuntimeError, ValueError) as error:
        raise ValueError(f"This machine cannot train so: {str(error).splitlines()[0]}") from None
    stages = method.stages(method.spec, spec) if stages is None else stages
    job = Job(data, stages, seed, folder, progress, on_epoch, defects, stop)
    if not several:
        return _fit(method, job, fabric)
    try:
        fabric.launch(partial(_fit, method, job))  # worker 0's weights come by its checkpoint
    except ProcessRaisedException as error:
        name, _, message = str(error).strip().splitlines()[-1].partition(": ")
        if name != "ValueError":
            raise
        raise ValueError(message) from None
    except ProcessExitedException as error:
        raise ValueError(UNGUARDED if error.exit_code == 1 else str(error)) from None
    return load_checkpoint(folder, method)[0]


def accelerator(spec: TrainSpec) -> str:
    """The device that a spec asks for; `auto` is a GPU where there is one."""
    auto = "cuda" if torch.cuda.is_available() else "cpu"
    return auto if spec.accelerator == "auto" else spec.accelerator


def _fit(method: Method, job: Job, fabric: Fabric) -> History:
    """Every stage, from where the checkpoint stands; then the constants of the score."""
    history, state = load_checkpoint(job.folder, method) if job.folder else ([], {})
    if not history:
        method.fit_statistics(job.data.batches())
    method.to(fabric.device)
    free = [p for p in method.parameters() if p.requires_grad]
    optimizer, start = None, 0
    for number, stage in enumerate(job.stages):
        end = start + stage.train.epochs
        if len(history) < end:
            mine = {id(p) for p in method.get_submodule(stage.part).parameters()}
            for parameter in free:
                parameter.requires_grad_(id(parameter) in mine)
            held = state if len(history) > start else {}
            try:
                optimizer = _stage(fabric, method, job, number, start, history, held)
            except Stopped:
                history, _ = load_checkpoint(job.folder, method)
                check_stopped(len(history), job.stages)
                break
        start = end
    for parameter in free:
        parameter.requires_grad_(True)
    fabric.barrier()
    method.eval()
    with torch.no_grad():
        method.fit_score(_normals(fabric, job.data))
    if job.folder and fabric.world_size > 1 and fabric.global_rank == 0:
        save_checkpoint(job.folder, method, optimizer, history)
    return history


def _stage(
    fabric: Fabric,
    method: Method,
    job: Job,
    number: int,
    start: int,
    history: History,
    state: dict[str, Tensor],
) -> _FabricOptimizer:
    """The epochs of a stage that are still to do, in `history`; returns its optimiser.

    Args: number: of the stage; start: its first epoch; state: of its optimiser, if it resumes.
    """
    stage = job.stages[number]
    spec, part = stage.train, method.get_submodule(stage.part)
    optimizer = torch.optim.AdamW(
        part.parameters(),
        lr=spec.lr,
        betas=spec.betas,
        eps=spec.eps,
        weight_decay=spec.weight_decay,
    )
    model, optimizer = fabric.setup(method, optimizer)
    model.mark_forward_method("loss")
    restore_optimizer(optimizer, state)
    data: FeatureSet | Kept = job.data
    if stage.keeps:
        data = Kept(data, partial(method.stage_input, stage=stage.name), fabric.device)
    work = StageJob(fabric, job, stage, data, start, model, part, optimizer)
    with _bar(work, number, len(history) - start) as bar:
        for epoch in range(len(history), start + spec.epochs):
            with torch.no_grad():
                method.on_epoch_start(epoch, _normals(fabric, job.data))
            history.append(_epoch(work, epoch, bar))
            if fabric.global_rank == 0:
                if job.folder:
                    save_checkpoint(job.folder, method, optimizer, history)
                if job.on_epoch:
                    job.on_epoch(history)
    return optimizer


def _bar(work: StageJob, number: int, done: int) -> tqdm:
    """The progress of stage `number`, of which so many epochs are done."""
    stage, count = work.stage, len(work.job.stages)
    name = f", stage {number + 1} of {count}: {stage.name}" if count > 1 else ""
    return tqdm(
        total=stage.train.epochs * work.steps,
        initial=done * work.steps,
        desc=f"training{name}",
        unit="step",
        disable=not work.job.progress or work.fabric.global_rank > 0,
    )


def _epoch(work: StageJob, epoch: int, bar: tqdm) -> dict[str, Any]:
    """One pass over the images; returns its row of the history.

    Raises: ValueError if a loss or a weight is not finite.
    """
    spec, method = work.stage.train, work.model.module
    work.model.train()
    method.eval()  # what the stage leaves alone
    work.part.train()
    started, totals, looks = time.perf_counter(), Counter(), Counter()
    for step, (features, batch) in enumerate(_batches(work, epoch)):
        if work.job.stop and work.job.stop():
            raise Stopped
        rate = learning_rate(spec, (epoch - work.start) * work.steps + step, work.steps)
        for group in work.optimizer.param_groups:
            group["lr"] = rate
        seed = ((work.job.seed * 100_003 + epoch) * 100_003 + step) % 2**64
        generator = torch.Generator().manual_seed(seed)
        for part, part_batch in method.microbatches(features, batch, generator):
            losses = work.model.loss(part, part_batch)
            loss = _objective(losses, method)
            if not torch.isfinite(loss):
                values = ", ".join(f"{name} = {x.item():.4g}" for name, x in losses.items())
                place = f", step {step + 1} ({values})"
                raise ValueError(UNSTABLE.format("The loss is", epoch + 1, place, rate))
            _step(work, loss)
            totals.update({name: value.item() * len(part) for name, value in losses.items()})
            looks.update(dict.fromkeys(losses, len(part)))
        means = {name: total / looks[name] for name, total in totals.items()}
        whole = _objective(means, method)
        bar.set_postfix(loss=f"{whole:.3f}", refresh=False)
        bar.update()
    if not all(parameter.isfinite().all() for parameter in work.part.parameters()):
        raise ValueError(UNSTABLE.format("The weights are", epoch + 1, "", rate))
    row = {"epoch": epoch + 1} | ({"stage": work.stage.name} if work.stage.name else {})
    seconds = time.perf_counter() - started
    return row | means | {"loss": whole, "lr": rate, "seconds": seconds}


def _step(work: StageJob, loss: Tensor) -> None:
    """One step of the optimiser, each group's gradient clipped by itself."""
    fabric, clip = work.fabric, work.stage.train.clip
    work.optimizer.zero_grad()
    fabric.backward(loss)
    fabric.strategy.precision.unscale_gradients(work.optimizer.optimizer)  # before clipping
    for group in work.model.module.clip_groups() if clip else ():
        nn.utils.clip_grad_norm_([p for p in group if p.requires_grad], clip)
    work.optimizer.step()


def _normals(fabric: Fabric, data: FeatureSet) -> Iterator[Features]:
    """All training normals in order, on the device."""
    for features in data.batches():
        yield features.map(lambda t: t.to(fabric.device))


def _objective(terms: dict[str, Any], method: Method) -> Any:
    """The sum of the terms that a method minimises."""
    return sum(value for name, value in terms.items() if name not in method.logged_only)


def _batches(work: StageJob, epoch: int) -> Iterator[tuple[Features, Batch]]:
    """This worker's share of each step: normal images, and after them synthetic defects."""
    fabric, data, seed = work.fabric, work.data, work.job.seed
    bad = work.job.defects(epoch) if work.job.defects else None
    good = order(len(data), work.stage.train.batch, seed, epoch)
    size = math.ceil(len(bad) / len(good)) if bad else 1
    extras = order(len(bad), size, seed + 1, epoch) if bad else []
    for indices, extra in zip_longest(good, extras, fillvalue=()):
        features, mask = data.batch(_share(fabric, indices)), None
        label = torch.zeros(len(features), dtype=torch.int64)
        if bad and extra:
            mine = _share(fabric, extra)
            masks = bad.masks(mine)
            mask = torch.cat([masks.new_zeros(len(features), *masks.shape[1:]), masks])
            features = Features.join(features, bad.batch(mine))
            label = torch.cat([label, torch.ones(len(mine), dtype=torch.int64)])
        label, mask = (t if t is None else t.to(fabric.device) for t in (label, mask))
        batch = Batch(label, mask, stage=work.stage.name or None)
        yield features.map(lambda t: t.to(fabric.device, non_blocking=True)), batch


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
