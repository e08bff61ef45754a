"""Exercises as data: a block of `labkit/exercises/NN.yaml` each, NN its lesson.

What is code in a block runs in this order, each piece with the names that the pieces before it
left behind and np, torch, math, rng (a generator of the student's seed and the exercise):

    given -> names, this student's data;   solution, or a foreseen mistake's code -> `answer`;
    inputs -> `inputs`, drawn anew at every check;   test -> raises `Wrong`, or does not
"""

import json
import math
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import torch
import yaml
from markdown_it import MarkdownIt

from labkit.core.config import unknown
from labkit.core.seeds import generator, seeded

FOLDER = Path(__file__).parents[1] / "exercises"
STARS = {"recall": "★", "compute": "★★", "code": "★★★"}
TONES = {"right": "#009E73", "wrong": "#D55E00", "open": "#8a8a8a", "text": "#0072B2"}
MATH = re.compile(r"\$\$(.+?)\$\$|\$(.+?)\$", re.DOTALL)
MARK = "\ue000"  # stands for a formula while Markdown is read
Names = dict[str, Any]


class Wrong(Exception):
    """One sentence that helps a student whose answer is wrong."""


@dataclass(frozen=True, kw_only=True)
class Exercise:
    """A block of a lesson's YAML file; what is code stays text until it runs.

    digits: significant digits that are asked; within: relative tolerance in their place. Without
        both, numbers pass within 1 %, whole ones to three digits, a function's within 0.1 %.
    wrong: foreseen mistakes, {message, code}.
    why: the idea behind the solution, Markdown, shown with it and with a right answer.
    """

    id: str
    level: str
    ask: str
    solution: str
    given: str = ""
    inputs: str = ""
    test: str = ""
    digits: int | None = None
    within: float | None = None
    wrong: Sequence[dict[str, str]] = ()
    hints: Sequence[str] = ()
    why: str = ""

    def run(self, code: str, rng: np.random.Generator | None = None, **more: Any) -> Names:
        """The names after `given` and then the code, which draws from `rng` if there is one."""
        own = generator("exercise", course()[1], self.id)
        names = {"np": np, "torch": torch, "math": math, "rng": own, "Wrong": Wrong}
        for text in (self.given, code):
            with seeded(int(names["rng"].integers(2**31))):
                exec(compile(text, f"exercise {self.id}", "exec"), names)
            names |= more | ({"rng": rng} if rng else {})
        return names

    def answer(self, code: str) -> Any:
        """What the solution, or a mistake's code, answers."""
        return self.run(code)["answer"]

    def data(self) -> Names:
        """What `given` leaves behind, but for modules."""
        usual = {"np", "torch", "math", "rng", "Wrong"}
        return {
            name: value
            for name, value in self.run("").items()
            if not (name in usual or name.startswith("__") or isinstance(value, ModuleType))
        }

    def fill(self, text: str) -> str:
        """The text with {name} or {name:.2f} of the data; other braces belong to LaTeX.

        A name with an underscore before it is for texts alone.
        """
        data = self.data() if "{" in text else {}

        def value(match: re.Match[str]) -> str:
            name, form = match.groups()
            return format(data[name], form or "") if name in data else match[0]

        return re.sub(r"\{(\w+)(?::([^{}]*))?\}", value, text)

    def solved(self) -> str:
        """Solution, what it comes to if that is a number or a word, and idea, as Markdown."""
        value = self.answer(self.solution) if self.level != "code" else None
        value = float(f"{value:.4g}") if isinstance(value, float) else value
        short = f"\n\nThat is `{value!r}`." if isinstance(value, int | float | str) else ""
        return f"```python\n{self.solution.strip()}\n```{short}\n\n{self.fill(self.why)}"


@dataclass(frozen=True)
class Card:
    """What a notebook shows: HTML, or plain text where there is none.

    tone: right, wrong, open (not answered) or text. parts: Markdown; folded: more of it, by the
    summary that stands before it.
    """

    tone: str
    title: str
    parts: Sequence[str]
    folded: Sequence[tuple[str, str]] = ()

    def __repr__(self) -> str:
        texts = [*self.parts, *(part for pair in self.folded for part in pair)]
        return "\n".join([self.title, *(text.strip() for text in texts if text.strip())])

    def _repr_html_(self) -> str:
        colour = TONES[self.tone]
        edge = f"border-left:6px solid {colour};padding:.4em 1em;margin:.4em 0"
        inner = "".join(map(html, self.parts))
        for summary, text in self.folded:
            inner += f"<details open><summary>{summary}</summary>{html(text)}</details>"
        title = html(self.title).replace("<p>", f"<p style='font-weight:600;color:{colour}'>")
        return f"<div style='{edge}'>{title}{inner}</div>"


def html(text: str) -> str:
    r"""Markdown as HTML; formulas pass through as \(...\), which notebooks and the book typeset.

    >>> html("The *slope* $f'_k$")
    "<p>The <em>slope</em> \\(f'_k\\)</p>\n"
    """
    formulas: list[str] = []

    def mark(match: re.Match[str]) -> str:
        shown = rf"\[{match[1]}\]" if match[1] else rf"\({match[2]}\)"
        formulas.append(shown.replace("&", "&amp;").replace("<", "&lt;"))
        return f"{MARK}{len(formulas) - 1}{MARK}"

    markdown = MarkdownIt("commonmark", {"html": False}).enable("table")
    rendered = markdown.render(MATH.sub(mark, text))
    return re.sub(f"{MARK}(\\d+){MARK}", lambda match: formulas[int(match[1])], rendered)


def course() -> tuple[str, int]:
    """Student and seed of `course.json` beside the notebook, else LABKIT_COURSE_SEED, else 0.

    Raises: ValueError if the file or the variable holds something else.
    """
    path = Path("course.json")
    try:
        if path.is_file():
            held = json.loads(path.read_text(encoding="utf-8"))
            return str(held["student"]), int(held["seed"])
        return "", int(os.environ.get("LABKIT_COURSE_SEED") or 0)
    except (OSError, ValueError, KeyError, TypeError):
        source = path if path.is_file() else "LABKIT_COURSE_SEED"
        raise ValueError(
            f"{source} holds no seed; `labkit course make` writes course.json."
        ) from None


def names() -> list[str]:
    """Every exercise of every lesson, in order."""
    return [name for path in sorted(FOLDER.glob("*.yaml")) for name in _blocks(path)]


def get(name: str) -> Exercise:
    """An exercise by its name, such as 01.3.

    Raises: ValueError for an unknown name, or a block with other keys than it needs.
    """
    path = FOLDER / f"{str(name).partition('.')[0]}.yaml"
    blocks = _blocks(path) if path.is_file() else {}
    if name not in blocks:
        raise ValueError(unknown("exercise", str(name), names()))
    keys = {field.name for field in fields(Exercise)} - {"id"}
    for key in sorted({"level", "ask", "solution"} - set(blocks[name])):
        raise ValueError(f"{path.name}: exercise {name} has no {key}; write one.")
    for key in sorted(set(blocks[name]) - keys):
        raise ValueError(f"{path.name}, exercise {name}: {unknown('key', key, keys)}")
    return Exercise(id=name, **blocks[name])


def exercise(name: str) -> Card:
    """The text of an exercise, with this student's numbers."""
    one = get(name)
    data = ", ".join(f"`{key}`" for key in one.data() if not key.startswith("_"))
    more = f'`given("{name}")` holds your {data}.' if data else ""
    return Card("text", f"Exercise {name} {STARS[one.level]}", [one.fill(one.ask), more])


def given(name: str) -> SimpleNamespace:
    """The data of an exercise as attributes: `given("01.1").x`."""
    return SimpleNamespace(**get(name).data())


def solution(name: str) -> Card:
    """Hints, solution and the idea behind it; nothing is assigned."""
    one = get(name)
    hints = "\n".join(f"{k + 1}. {one.fill(text)}" for k, text in enumerate(one.hints))
    return Card("text", f"Solution of {name}", [hints, one.solved()])


def _blocks(path: Path) -> dict[str, dict[str, Any]]:
    return yaml.safe_load(path.read_text(encoding="utf-8")) or {}
