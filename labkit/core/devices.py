"""The device that a config names."""

import torch


def device_of(name: str) -> torch.device:
    """The device of a name: auto, cpu, cuda or cuda:1; `auto` is a GPU where there is one.

    Raises: ValueError if this machine has none such.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(
            f"device={name} is not here: this machine has {torch.cuda.device_count()} GPUs that "
            "torch can use; take device=auto, or device=cpu."
        )
    return device
