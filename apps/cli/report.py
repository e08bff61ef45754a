"""What `labkit evaluate` prints: metrics with their limits and intervals, defects by name."""

from __future__ import annotations

from typing import Any

from labkit_apps.cli.output import pairs, table

INTERVAL = "[low, high]: 95 % bootstrap interval over the test images; it says nothing of seeds."


def text(metrics: dict[str, Any]) -> str:
    """The result of `detector.evaluate` for a person."""
    flat = {key: value for key, value in metrics.items() if not isinstance(value, dict | list)}
    limits = {key[:-6]: flat.pop(key) for key in list(flat) if key.endswith("_limit")}
    ranges = {key: pair for key, pair in metrics.get("intervals", {}).items() if pair}
    for key, (low, high) in ranges.items():
        flat[key] = f"{flat[key]:.4f}  [{low:.4f}, {high:.4f}]"
    shown = {}
    for key, value in flat.items():
        limit = next((limits[name] for name in limits if key.startswith(name)), None)
        shown[f"{key} (FPR <= {limit:g})" if limit else key] = value
    parts = [pairs(shown), INTERVAL if ranges else ""]
    if metrics.get("defects"):
        parts.append(table(metrics["defects"]))
    return "\n\n".join(part for part in parts if part)
