"""What a training keeps of its last whole epoch, to go on from there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from labkit.core.files import write_whole
from labkit.methods.base import Method

CHECKPOINT = "checkpoint.safetensors"
History = list[dict[str, Any]]


def save_checkpoint(folder: Path, method: Method, optimizer: Any, history: History) -> None:
    """Weights, optimiser state and history in one safetensors file, written atomically."""
    tensors = {f"method.{name}": value for name, value in method.state_dict().items()}
    for index, state in optimizer.state_dict()["state"].items() if optimizer else ():
        for name, value in state.items():
            tensors[f"optimizer.{index}.{name}"] = torch.as_tensor(value)
    tensors = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    notes = {"history": json.dumps(history)}
    write_whole(folder / CHECKPOINT, lambda path: save_file(tensors, path, metadata=notes))


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


def restore_optimizer(optimizer: Any, tensors: dict[str, Tensor]) -> None:
    """Put a checkpoint's tensors into the optimiser that wrote them; nothing if there are none."""
    if not tensors:
        return
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        index, key = name.split(".", 1)
        state.setdefault(int(index), {})[key] = value
    whole = optimizer.state_dict()
    optimizer.load_state_dict({"state": state, "param_groups": whole["param_groups"]})
