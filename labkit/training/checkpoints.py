"""What a training keeps of its last whole epoch, to go on from there."""

import hashlib
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
    notes["sha256"] = _digest(tensors, notes["history"])
    write_whole(folder / CHECKPOINT, lambda path: save_file(tensors, path, metadata=notes))


def load_checkpoint(folder: Path, method: Method) -> tuple[History, dict[str, Tensor]]:
    """Put a checkpoint's weights into the method; its history and optimiser tensors, if any.

    Raises: ValueError if it is not what was written; nothing of it is used then.
    """
    path = folder / CHECKPOINT
    if not path.is_file():
        return [], {}
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            notes = file.metadata()
        history = json.loads(notes["history"])
        if notes["sha256"] != _digest(tensors, notes["history"]):
            raise ValueError
        weights = {n[7:]: value for n, value in tensors.items() if n.startswith("method.")}
        method.load_state_dict(weights)
    except (SafetensorError, OSError, KeyError, TypeError, ValueError, RuntimeError):
        raise ValueError(
            f"{path} is damaged or of an older labkit; delete it to train from the start."
        ) from None
    return history, {n[10:]: v for n, v in tensors.items() if n.startswith("optimizer.")}


def _digest(tensors: dict[str, Tensor], history: str) -> str:
    """A hash of names, types, shapes and values, and of the history."""
    digest = hashlib.sha256(history.encode())
    for name, value in sorted(tensors.items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


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
