"""What follows each paper, from the cards.

python -m labkit_apps.book.reproduce docs      writes docs/reproduce.md
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from labkit import methods, studies
from labkit.core.config import plain
from labkit.methods import cards
from labkit.studies import forecast
from labkit.studies.jobs import jobs
from labkit.studies.spec import Study

INTRO = """# Reproducing a paper

`--budget paper` is `preset=paper`: what the paper says; where it is silent, what its authors' code
does; where both are, labkit's default. `preset=official` hears the code first. Both are read from
`labkit/cards/`, one entry a point, and so is this page (`make reproduce`).

`labkit data get NAME --root DIR` fetches a dataset, if its licence allows that. Weights come from
timm's hub by their tag, or from a file that is named after it (`--backbone FILE`). Before anything
starts, `labkit study dnfad-depth --budget paper --root DIR --dry-run` says how many trainings a
study takes, how many hours of a GPU, how much disk, and which data and weights are not there.
Hours here are counted, not measured: FLOPs at {rate:g} a second.

No number in labkit's own tables was measured at this budget so far."""
HEAD = ("setting", "`preset=paper`", "from", "`preset=official`", "from")
OPEN = "The paper leaves open; its code, or the convention that is named, stands in:"


def page() -> str:
    """The document: a section for each method with a card."""
    every = [one for one in map(studies.get, studies.names()) if one.source != "ours"]
    sections = [_section(name, every) for name in methods.names() if cards.exists(name)]
    return "\n\n".join([INTRO.format(rate=forecast.RATE), *sections]) + "\n"


def _section(name: str, every: Sequence[Study]) -> str:
    """Its command, its settings with their origin, and what the paper leaves open."""
    data = "cifar10/airplane" if name == "sanf" else "mvtec_ad/bottle"
    entries = cards.read(cards.FOLDER / f"{name}.yaml")
    parts = [f"## {methods.get(name).title}"]
    parts += [f"```\nlabkit train {name} {data} --root DIR --budget paper\n```"]
    parts += [_needs(name, data), *_tables([one for one in every if one.paper == name])]
    parts += ["\n".join(f"| {' | '.join(row)} |" for row in _rows(name, data))]
    for entry in entries:
        if entry.data:
            pairs = (entry.switch("paper") or entry.switch("code")).items()
            parts += [f"For {', '.join(entry.data)}: {', '.join(f'`{k}={v}`' for k, v in pairs)}."]
    silent = [e for e in entries if e.as_code and not (e.as_paper or e.variant)]
    points = [f"- **{e.point}**. {e.code[0].upper()}{e.code[1:]}." for e in silent]
    return "\n\n".join([*parts, *([OPEN, "\n".join(points)] if points else [])])


def _needs(name: str, data: str) -> str:
    """What this training takes."""
    config = methods.resolve(name, data, "paper")
    size = forecast.training(config, {})
    return (
        f"It needs the weights `{config.input.backbone}`, {size.hours:.2g} hours of a GPU and "
        f"{size.train_gb + size.test_gb:.2g} GB of disk for features."
    )


def _tables(own: Sequence[Study]) -> list[str]:
    """The studies of the paper's tables and figures; none of a baseline's."""
    rows = [["study", "of the paper", "trainings", "notebook"], ["---"] * 4]
    for one in sorted(own, key=lambda study: (study.source.split()[0], study.name)):
        count = len(jobs(one.tasks("paper"))) if one.measure != "cost" else 0
        page = f"[{one.notebook}](../notebooks/{one.notebook}.ipynb)" if one.notebook else ""
        rows.append([f"`{one.name}`", one.source, str(count or "costs alone"), page])
    return ["\n".join(f"| {' | '.join(row)} |" for row in rows)] if own else []


def _rows(name: str, data: str) -> list[list[str]]:
    """Each setting of either preset: its value and who gives it."""
    keys, columns = {}, []
    for preset in cards.PRESETS:
        config = methods.resolve(name, data, "paper", overrides={"preset": preset})
        columns.append((config, cards.origin(name, preset, data)))
        keys |= dict.fromkeys(columns[-1][1])
    rows = [list(HEAD), ["---"] * len(HEAD)]
    for key in keys:
        cells = [(f"`{plain(config.value(key))}`", origin[key]) for config, origin in columns]
        rows.append([f"`{key}`", *(cell for pair in cells for cell in pair)])
    return rows


if __name__ == "__main__":
    (Path(sys.argv[1]) / "reproduce.md").write_text(page(), encoding="utf-8")
