"""What a training keeps of its last whole epoch, to go on from there."""

import hashlib
import json
import math
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from labkit.core.files import write_whole
from labkit.methods.base import Method

CHECKPOINT = "checkpoint.sealed"
BEST = "best"  # folder of the checkpoint that early stopping keeps
LENGTH = hashlib.sha256().digest_size  # of the hash before the tensors
History = list[dict[str, Any]]
State = dict[int, dict[str, torch.Tensor]]  # of an optimiser, by its parameters


def best_epoch(history: History) -> int:
    """The epoch at which validation images are likeliest, counted from 1; 0 if there are none.

    >>> best_epoch([{"validation_nats": 1.2}, {"validation_nats": 0.9}, {"validation_nats": 1.0}])
    2
    """
    nats = [row.get("validation_nats", math.nan) for row in history]
    whole = [value for value in nats if math.isfinite(value)]
    return nats.index(min(whole)) + 1 if whole else 0


def save_checkpoint(folder: Path, method: Method, optimizer: Any, history: History) -> None:
    """Weights, optimiser state and history in one file behind their hash, written atomically."""
    tensors = {f"method.{name}": value for name, value in method.state_dict().items()}
    for index, state in optimizer.state_dict()["state"].items() if optimizer else ():
        for name, value in state.items():
            tensors[f"optimizer.{index}.{name}"] = torch.as_tensor(value)
    tensors["history"] = torch.tensor(list(json.dumps(history).encode()), dtype=torch.uint8)
    data = save({name: value.detach().cpu().contiguous() for name, value in tensors.items()})

    def sealed(path: Path) -> None:
        with path.open("wb") as file:  # gigabytes: not joined to a second copy
            file.writelines((hashlib.sha256(data).digest(), data))

    write_whole(folder / CHECKPOINT, sealed)


def load_checkpoint(folder: Path, method: Method) -> tuple[History, State]:
    """Put a checkpoint's weights into the method; its history and optimiser state, if any.

    Raises: ValueError if it is not what was written; nothing of it is used then.
    """
    path = folder / CHECKPOINT
    if not path.is_file():
        return [], {}
    with path.open("rb") as file:
        digest, data = file.read(LENGTH), file.read()
    try:
        if hashlib.sha256(data).digest() != digest:
            raise ValueError
        tensors, state = load(data), {}
        history = json.loads(bytes(tensors.pop("history").tolist()))
        for name in [name for name in tensors if name.startswith("optimizer.")]:
            _, index, key = name.split(".", 2)
            state.setdefault(int(index), {})[key] = tensors.pop(name)
        method.load_state_dict({name[7:]: value for name, value in tensors.items()})
    except (SafetensorError, ValueError, RuntimeError):
        raise ValueError(
            f"{path} is damaged or of other settings; delete it to train from the start."
        ) from None
    return history, state
