"""What a training keeps of its last whole epoch, to go on from there."""

import hashlib
import io
from pathlib import Path
from typing import Any

import torch

from labkit.core.files import write_whole
from labkit.methods.base import Method

CHECKPOINT = "checkpoint.pt"
LENGTH = hashlib.sha256().digest_size  # of the hash before what torch writes
History = list[dict[str, Any]]


def save_checkpoint(folder: Path, method: Method, optimizer: Any, history: History) -> None:
    """Weights, optimiser state and history in one file behind their hash, written atomically."""
    state, content = optimizer.state_dict() if optimizer else None, io.BytesIO()
    torch.save({"method": method.state_dict(), "optimizer": state, "history": history}, content)
    data = content.getbuffer()

    def write(path: Path) -> None:
        with path.open("wb") as file:
            file.writelines([hashlib.sha256(data).digest(), data])

    write_whole(folder / CHECKPOINT, write)


def load_checkpoint(folder: Path, method: Method) -> tuple[History, dict[str, Any] | None]:
    """Put a checkpoint's weights into the method; its history and optimiser state, if any.

    Raises: ValueError if it is not what was written; nothing of it is used then.
    """
    path = folder / CHECKPOINT
    if not path.is_file():
        return [], None
    content = path.read_bytes()
    digest, data = content[:LENGTH], content[LENGTH:]
    try:
        if hashlib.sha256(data).digest() != digest:
            raise ValueError
        stored = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
        method.load_state_dict(stored["method"])
    except (ValueError, RuntimeError):
        raise ValueError(
            f"{path} is damaged or of other settings; delete it to train from the start."
        ) from None
    return stored["history"], stored["optimizer"]
