"""The notebooks in reading order, and their map from their first cells.

python -m labkit_apps.book.contents notebooks      writes notebooks/README.md
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from labkit.core.config import unknown

PARTS = {  # folder of notebooks -> its heading; parents come before their children
    "course": "Course", "baselines": "Baselines", "dnfad": "DNFAD", "dadf": "DADF", "sanf": "SANF",
    "sanflow": "SANFlow", "selfsup": "Self-supervised flows", "compare": "All methods",
}  # fmt: skip
INTRO = """# The notebooks

Each notebook asks one question. It shows the equation, makes one call, draws what the equation
does, and ends with exercises and with what it does not show.

    LABKIT_BUDGET=laptop .venv/bin/jupyter lab notebooks

`LABKIT_BUDGET` is the training effort. `quick` takes less than half a minute per notebook; its
numbers mean nothing. `laptop` computes the stored outputs on two CPU cores. `paper` takes the
paper's size and epochs; it wants a GPU. `stored`, the default of the course, opens what is there
and trains the rest once, at `laptop`; elsewhere the default is `quick`. The last column is the
time of the first run at `laptop`; a second run reads stored results and takes a minute or two."""
QUESTION = re.compile(r"\*\*Question\.?\*\*\s*(.+?)(?:\n\s*\n|\Z)", re.DOTALL)
TIME = re.compile(
    r"\*\*Run time\*\*(?:[^.:]*:)?\s*(.+?)(?: at the `laptop`| the first time|,|;| \(|\.(?:\s|\Z))"
)
LINK = re.compile(r"\[([^\]]+)\]\([^)]+\)")  # relative to the notebook, not to the map


def notebooks(folder: Path, only: Sequence[str] = ()) -> list[Path]:
    """The notebooks of a folder and its folders, or those named (`00_dnfad`, `00`, or `dnfad`).

    Raises: ValueError if there are none, or not one that is named.
    """
    paths = [path for path in sorted(folder.rglob("*.ipynb")) if ".ipynb_" not in str(path)]
    if not paths:
        raise ValueError(f"{folder} holds no notebooks; give --notebooks FOLDER.")
    names = {path: {path.stem, path.stem.split("_")[0], path.parent.name} for path in paths}
    for name in only:
        if not any(name in group for group in names.values()):
            raise ValueError(unknown("notebook", name, [path.stem for path in paths]))
    return [path for path in paths if not only or names[path] & set(only)]


def chapters(folder: Path, only: Sequence[str] = ()) -> dict[str, list[Path]]:
    """Headings with their notebooks by name, in reading order; "" heads what is in no folder."""
    paths = notebooks(folder, only)
    homes = {path.parent.relative_to(folder).as_posix() for path in paths}
    order = sorted(homes, key=lambda home: ([".", *PARTS, home].index(home), home))
    headings = {home: "" if home == "." else PARTS.get(home, home) for home in order}
    return {headings[home]: [p for p in paths if p.parent == folder / home] for home in order}


def contents(folder: Path) -> str:
    """The map as Markdown: a table per folder, with title, question and run time."""
    lines = [INTRO]
    for heading, paths in chapters(folder).items():
        rows = ["| notebook | question | first run |", "|---|---|---|"]
        table = "\n".join([*rows, *(_row(path, folder) for path in paths)])
        lines.append(f"## {heading}\n\n{table}" if heading else table)
    return "\n\n".join(lines) + "\n"


def _row(path: Path, folder: Path) -> str:
    source = json.loads(path.read_text(encoding="utf-8"))["cells"][0]["source"]
    first = LINK.sub(r"\1", "".join(source)).replace("|", r"\|")
    parts = [match[1] if match else "" for match in (QUESTION.search(first), TIME.search(first))]
    name = f"[`{path.stem}`]({path.relative_to(folder).as_posix()})"
    cells = [f"{name}: {first.splitlines()[0].lstrip('# ')}", *parts]
    return f"| {' | '.join(' '.join(cell.split()) for cell in cells)} |"


if __name__ == "__main__":
    (Path(sys.argv[1]) / "README.md").write_text(contents(Path(sys.argv[1])), encoding="utf-8")
