"""`labkit bench complexity`: rows of `cost.complexity` in the units that papers print."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

CONVENTION = (
    "FLOPs of one image: products, convolutions and attention, a multiplication with its addition "
    "as 2\n(half of it is what papers call MACs, and some of them FLOPs); seconds with batch 1."
)


def readable(row: dict[str, Any]) -> dict[str, Any]:
    """A row of `cost.complexity` in the units that papers print."""
    shown = {"method": row["method"], "backbone": row["backbone"], "pixels": row["image_size"]}
    shown["trainable [M]"] = f"{row['trainable_parameters'] / 1e6:.1f}"
    shown["flops [G]"] = f"{row['flops'] / 1e9:.1f}"
    shown["backbone flops [G]"] = f"{row['backbone_flops'] / 1e9:.1f}"
    if row["device"]:
        for part in ("backbone", "method"):
            shown[f"{part} [ms]"] = f"{row[f'{part}_seconds'] * 1e3:.1f}"
        whole = row["seconds_per_image"]
        shown["whole [ms]"] = f"{whole * 1e3:.1f}"
        shown["whole / backbone"] = f"{whole / row['backbone_seconds']:.2f}"
        shown["FPS"] = f"{row['images_per_second']:.1f} on {row['device']}"
    return shown


def verdict(rows: Sequence[dict[str, Any]]) -> str:
    """How the figures are counted."""
    return CONVENTION
