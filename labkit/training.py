"""One fit loop for all methods, on Lightning Fabric: CPU, CUDA, MPS, bf16, several processes.

The order of images is a function of (seed, epoch), the rate one of the step, so a run resumed
from its last epoch goes on as if it had never stopped, to the bit on a CPU.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from tqdm.auto import tqdm

from labkit.config import TrainSpec
from labkit.features import DefectSet, FeatureSet
from labkit.files import write_whole
from labkit.methods.base import Method
from labkit.records import Batch, Features

CHECKPOINT = "checkpoint.safetensors"
History = list[dict[str, float]]


def fit(
    method: Method,
    data: FeatureSet,
    spec: TrainSpec,
    seed: int = 0,
    folder: Path | None = None,
    progress: bool = True,
    on_epoch: Callable[[History], None] | None = None,
    defects: Callable[[int], DefectSet] | None = None,
) -> History:
    """Train a method on cached features of normal images; returns one row an epoch.

    One without parameters takes what it needs of them and has no epochs.

    Args:   folder: where the checkpoint of each epoch goes; one found there is resumed.
            on_epoch: called with the history after each epoch; an exception from it stops.
            defects: the synthetic defects of an epoch, counted from 0; all of them are spread
            over its steps, beside the `batch` normal images of each.
    Raises: ValueError if a loss is not finite (the last epoch's checkpoint stays), `devices`
            asks for more than the machine has, or a method's steps cannot be shared.
    """
    if not any(parameter.requires_grad for parameter in method.parameters()):
        method.prepare(data.batches())
        method.eval().finish(data.batches())
        return []
    several = spec.devices > 1
    if several and folder is None:
        raise ValueError("Training on several devices needs a folder for its checkpoints.")
    if several and method.by_parts:
        raise ValueError("Several steps a batch train on one device; set devices=1.")
    try:
        fabric = Fabric(
            accelerator=spec.accelerator,
            devices=spec.devices,
            strategy="ddp_spawn" if several else "auto",
            precision=spec.precision,
        )
    except (RuntimeError, ValueError) as error:
        raise ValueError(f"This machine cannot train so: {str(error).splitlines()[0]}") from None
    job = (method, data, spec, seed, folder, progress, on_epoch, defects)
    if not several:
        return _fit(fabric, *job)
    fabric.launch(partial(_work, job))  # worker 0's weights come back through its checkpoint
    history, _ = load_checkpoint(folder, method)
    return history


def _work(job: tuple, fabric: Fabric) -> None:
    _fit(fabric, *job)


def _fit(fabric, method, data, spec, seed, folder, progress, on_epoch, defects) -> History:
    optimizer = torch.optim.AdamW(
        method.parameters(),
        lr=spec.lr,
        betas=spec.betas,
        eps=spec.eps,
        weight_decay=spec.weight_decay,
    )
    history, state = load_checkpoint(folder, method) if folder else ([], {})
    if not history:
        method.prepare(data.batches())
    model, optimizer = fabric.setup(method.to(fabric.device), optimizer)
    model.mark_forward_method("loss")
    _restore_optimizer(optimizer, state)
    groups = [[p for p in group if p.requires_grad] for group in method.clip_groups()]
    steps = math.ceil(len(data) / spec.batch)
    bar = tqdm(
        total=spec.epochs * steps,
        initial=len(history) * steps,
        desc="training",
        unit="step",
        disable=not progress or fabric.global_rank > 0,
    )
    with bar:
        for epoch in range(len(history), spec.epochs):
            with torch.no_grad():
                method.begin(epoch, _normals(fabric, data))
            model.train()
            bad = defects(epoch) if defects else None
            job = (data, bad, spec, seed, epoch)
            history.append(_epoch(fabric, model, optimizer, groups, job, bar))
            if fabric.global_rank == 0:
                if folder:
                    save_checkpoint(folder, method, optimizer, history)
                if on_epoch:
                    on_epoch(history)
    fabric.barrier()
    method.eval()
    with torch.no_grad():
        method.finish(_normals(fabric, data))
    if folder and spec.devices > 1 and fabric.global_rank == 0:
        save_checkpoint(folder, method, optimizer, history)
    return history


def _epoch(fabric, model, optimizer, groups, job, bar) -> dict[str, float]:
    data, _, spec, seed, epoch = job
    started, totals = time.perf_counter(), {}
    steps = math.ceil(len(data) / spec.batch)
    for step, (features, batch) in enumerate(_batches(fabric, *job)):
        rate = learning_rate(spec, epoch * steps + step, steps)
        for group in optimizer.param_groups:
            group["lr"] = rate
        generator = torch.Generator().manual_seed((seed * 100_003 + epoch) * 100_003 + step)
        for seen, told in model.module.parts(features, batch, generator):
            losses = model.loss(seen, told)
            loss = _objective(losses, model.module)
            if not torch.isfinite(loss):
                _stop(losses, epoch, step, rate)
            optimizer.zero_grad()
            fabric.backward(loss)
            if spec.clip:
                for group in groups:
                    nn.utils.clip_grad_norm_(group, spec.clip)
            optimizer.step()
            for name, value in losses.items():
                total, count = totals.get(name, (0.0, 0))
                totals[name] = (total + value.item() * len(seen), count + len(seen))
        means = {name: total / count for name, (total, count) in totals.items()}
        whole = _objective(means, model.module)
        bar.set_postfix(loss=f"{whole:.3f}", refresh=False)
        bar.update()
    seconds = time.perf_counter() - started
    return {"epoch": epoch + 1, **means, "loss": whole, "lr": rate, "seconds": seconds}


def _normals(fabric, data) -> Iterator[Features]:
    """All training normals in order, on the device."""
    for features in data.batches():
        yield features.map(lambda t: t.to(fabric.device))


def _objective(terms: dict[str, Any], method: Method) -> Any:
    """The sum of the terms, those left out that a method only watches."""
    return sum(value for name, value in terms.items() if name not in method.watched)


def _batches(fabric, data, bad, spec, seed, epoch) -> Iterator[tuple[Features, Batch]]:
    """This worker's share of each step: normal images, and after them synthetic defects."""
    good = order(len(data), spec.batch, seed, epoch)
    size = math.ceil(len(bad) / len(good)) if bad else 1
    drawn = order(len(bad), size, seed + 1, epoch) if bad else []
    for indices, extra in zip_longest(good, drawn, fillvalue=()):
        features, mask = data.batch(_share(fabric, indices)), None
        label = torch.zeros(len(features), dtype=torch.int64)
        if bad and extra:
            mine = _share(fabric, extra)
            masks = bad.masks(mine)
            mask = torch.cat([masks.new_zeros(len(features), *masks.shape[1:]), masks])
            features = Features.join(features, bad.batch(mine))
            label = torch.cat([label, torch.ones(len(mine), dtype=torch.int64)])
        told = [t if t is None else t.to(fabric.device) for t in (label, mask)]
        yield features.map(lambda t: t.to(fabric.device, non_blocking=True)), Batch(*told)


def _share(fabric, indices: Sequence[int]) -> Sequence[int]:
    """Every n-th; of a batch smaller than the number of workers its first for those left out."""
    return indices[fabric.global_rank :: fabric.world_size] or indices[:1]


def _stop(losses: dict[str, Tensor], epoch: int, step: int, rate: float) -> None:
    told = ", ".join(f"{name} = {value.item():.4g}" for name, value in losses.items())
    raise ValueError(
        f"The loss is not finite in epoch {epoch + 1}, step {step + 1} ({told}); "
        f"lower the rate (now lr={rate:.2g}) or the clamp. The last whole epoch is kept."
    )


def order(n: int, batch: int, seed: int, epoch: int) -> list[list[int]]:
    """The batches of an epoch, a fixed function of seed and epoch."""
    generator = torch.Generator().manual_seed(seed * 100_003 + epoch)
    shuffled = torch.randperm(n, generator=generator).tolist()
    return [shuffled[start : start + batch] for start in range(0, n, batch)]


def learning_rate(spec: TrainSpec, step: int, steps_per_epoch: int) -> float:
    """Linear warm-up, then constant, cosine to lr / 1000, or a factor at each milestone."""
    total = max(1, spec.epochs * steps_per_epoch)
    if step < spec.warmup:
        share = step / max(1, spec.warmup)
        return spec.lr * (spec.warmup_from + (1 - spec.warmup_from) * share)
    if spec.schedule == "cosine":
        done = (step - spec.warmup) / max(1, total - spec.warmup)
        return spec.lr * (1e-3 + (1 - 1e-3) * 0.5 * (1 + math.cos(math.pi * done)))
    if spec.schedule == "steps":
        passed = sum(step >= milestone * total for milestone in spec.milestones)
        return spec.lr * spec.decay**passed
    return spec.lr


def save_checkpoint(folder: Path, method: Method, optimizer: Any, history: History) -> None:
    """Weights, optimiser state and history in one safetensors file, written atomically."""
    tensors = {f"method.{name}": value for name, value in method.state_dict().items()}
    for index, state in optimizer.state_dict()["state"].items():
        for name, value in state.items():
            tensors[f"optimizer.{index}.{name}"] = torch.as_tensor(value)
    tensors = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    told = {"history": json.dumps(history)}
    write_whole(folder / CHECKPOINT, lambda path: save_file(tensors, path, metadata=told))


def load_checkpoint(folder: Path, method: Method) -> tuple[History, dict[str, Tensor]]:
    """Put a checkpoint's weights into the method; its history and optimiser tensors, if any."""
    path = folder / CHECKPOINT
    if not path.exists():
        return [], {}
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            history = json.loads(file.metadata()["history"])
    except (SafetensorError, OSError, KeyError, TypeError, json.JSONDecodeError):
        raise ValueError(f"{path} is damaged; delete it to train from the start.") from None
    weights = {name[7:]: value for name, value in tensors.items() if name.startswith("method.")}
    method.load_state_dict(weights)
    return history, {n[10:]: v for n, v in tensors.items() if n.startswith("optimizer.")}


def _restore_optimizer(optimizer: Any, tensors: dict[str, Tensor]) -> None:
    if not tensors:
        return
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        index, key = name.split(".", 1)
        state.setdefault(int(index), {})[key] = value
    whole = optimizer.state_dict()
    optimizer.load_state_dict({"state": state, "param_groups": whole["param_groups"]})
