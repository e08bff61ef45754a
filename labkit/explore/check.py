"""Answers to exercises are judged: `check("01.3", answer)` gives a green, red or grey card."""

import copy
import json
from collections.abc import Callable, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from labkit.core.files import write_whole
from labkit.core.seeds import seeded
from labkit.explore.exercises import Card, Exercise, Wrong, course, get

PROGRESS = "progress.json"  # beside the notebook
MISSES = 3  # so many, and the solution unfolds


class Unanswered(Exception):
    """The answer is still None, or a function that returns nothing."""


class Tolerance(NamedTuple):
    """How close numbers must be: half a unit of the last digit, else relative or absolute."""

    digits: int | None = None
    relative: float = 0.01
    absolute: float = 1e-9

    def close(self, answer: np.ndarray, expected: np.ndarray) -> bool:
        """Whether all are; whole numbers are asked to three digits."""
        whole, answer, expected = expected.dtype.kind in "iu", answer * 1.0, expected * 1.0
        size = np.abs(expected)
        limit = np.maximum(self.relative * size, max(self.absolute, 1e-4 * size.max(initial=0)))
        if digits := self.digits or (3 if whole else None):
            first = np.floor(np.log10(np.where(size > 0, size, 1.0)))
            limit = 0.5 * 10.0 ** (first - digits + 1) * (1 + 1e-6)
        return bool((np.abs(answer - expected) <= limit).all())


NUMBER, FUNCTION = Tolerance(), Tolerance(None, 1e-3, 1e-5)


def check(name: str, answer: Any) -> Card:
    """Judge an answer and keep the outcome in `progress.json`; never raises.

    The first miss shows a hint, the second a stronger one, the third the solution. A function
    runs on hidden random inputs, and what it returns is compared with the solution's. An answer
    that equals a foreseen mistake's gets that mistake's own message.
    """
    try:
        return _card(get(name), answer)
    except Exception as error:  # the exercise's fault, not the answer's
        return Card("open", f"{name}: not checked", [f"{error}"])


def _card(one: Exercise, answer: Any) -> Card:
    try:
        judge(one, answer)
    except Unanswered as error:
        return Card("open", f"{one.id}: not answered yet", [str(error)])
    except Wrong as error:
        misses, note = _record(one.id, False)
        hints = [f"*Hint.* {one.fill(text)}" for text in one.hints[:misses][-1:]]
        unfolded = [("Solution", one.solved())] if misses >= MISSES else []
        parts = [one.fill(str(error)), *hints, note]
        return Card("wrong", f"{one.id}: not yet", parts, unfolded)
    return Card("right", f"{one.id}: right", [one.fill(one.why), _record(one.id, True)[1]])


def judge(one: Exercise, answer: Any) -> None:
    """Return if an answer is right.

    Raises: Unanswered; Wrong with the message of the mistake that it equals, else with what does
            not fit.
    """
    if _blank(answer):
        raise Unanswered("Put your answer in place of `None` or `...` and run the cell again.")
    fresh = np.random.default_rng()
    inputs = one.run(one.inputs, fresh)["inputs"] if one.inputs else []
    trial = Trial(answer, inputs, _tolerance(one, answer))
    if trial.outputs and all(output is None or output is ... for output in trial.outputs):
        raise Unanswered("Your function returns nothing: is its `return` missing?")
    try:
        if one.test:
            _test(one, fresh, submitted=answer, inputs=inputs)
        else:
            trial.compare(one.answer(one.solution))
    except Wrong:
        for mistake in one.wrong:
            if trial.equals(one.answer(mistake["code"])):
                raise Wrong(mistake["message"]) from None
        raise


def _test(one: Exercise, rng: np.random.Generator, **more: Any) -> None:
    """Run an exercise's own test; what an answer breaks in it is the answer's fault."""
    try:
        one.run(one.test, rng, **more)
    except Wrong:
        raise
    except (Exception, SystemExit) as error:
        raise Wrong(f"Checking it stops with {_fault(error)}.") from None


def _tolerance(one: Exercise, answer: Any) -> Tolerance:
    usual = FUNCTION if callable(answer) else NUMBER
    return usual._replace(digits=one.digits, relative=one.within or usual.relative)


class Trial:
    """An answer and, if it is a function, what it returns for each of the inputs.

    outputs: an exception stands where one is raised; changed: whether an input is changed.
    """

    def __init__(
        self, answer: Any, inputs: Sequence[tuple[Any, ...]], tolerance: Tolerance
    ) -> None:
        self.answer, self.inputs, self.tolerance = answer, inputs, tolerance
        self.outputs, self.changed = self._call(answer) if callable(answer) else ([], False)

    def equals(self, other: Any) -> bool:
        """Whether another answer is the same value, or returns the same."""
        if not callable(other):
            return same(self.answer, other, self.tolerance)
        return bool(self.outputs) and self._agreement(self._call(other)[0]) == len(self.outputs)

    def compare(self, expected: Any) -> None:
        """Raise Wrong with what does not fit, as exactly as can be without giving it away."""
        if not callable(expected):
            if not same(self.answer, expected, self.tolerance):
                raise Wrong(_misfit(self.answer, expected) or "That is not the answer.")
            return
        if not callable(self.answer):
            raise Wrong(f"A function is asked for, not {_words(self.answer)}.")
        wanted = self._call(expected)[0]
        for arguments, *pair in zip(self.inputs, self.outputs, wanted, strict=True):
            if isinstance(pair[0], BaseException):
                shown = ", ".join(map(_words, arguments))
                raise Wrong(f"Given {shown}, your function raises {_fault(pair[0])}.")
            if misfit := _misfit(*pair):
                raise Wrong(f"What your function returns does not fit. {misfit}")
        right = self._agreement(wanted)
        if right < len(wanted):
            raise Wrong(f"It returns the right value for {right} of {len(wanted)} hidden inputs.")
        if self.changed:
            raise Wrong("Your function changes its input; compute on a copy, `x.clone()`.")

    def _agreement(self, others: Sequence[Any]) -> int:
        pairs = zip(self.outputs, others, strict=True)
        return sum(same(*pair, self.tolerance) for pair in pairs)

    def _call(self, function: Callable[..., Any]) -> tuple[list[Any], bool]:
        """Outputs for copies of the inputs, and whether a copy is changed."""
        outputs, changed = [], False
        with seeded(0):  # what draws is compared with what draws alike
            for arguments in self.inputs:
                copies = copy.deepcopy(arguments)
                try:
                    outputs.append(function(*copies))
                except (Exception, SystemExit) as error:
                    outputs.append(error)
                pairs = [map(_array, pair) for pair in zip(copies, arguments, strict=True)]
                changed |= any(not _equal(*pair) for pair in pairs)
        return outputs, changed


def same(answer: Any, expected: Any, tolerance: Tolerance = NUMBER) -> bool:
    """Whether two values agree: words and sets exactly, numbers within a tolerance.

    >>> same("Yes ", "yes"), same({2, 1}, {1, 2}), same([1.0, 2.01], [1, 2.0])
    (True, True, True)
    >>> same(0.637, 0.63662, Tolerance(3)), same(0.64, 0.63662, Tolerance(3))
    (True, False)
    """
    try:
        if isinstance(expected, bool | str):
            return bool(_word(answer) == _word(expected))
        if isinstance(expected, set | frozenset):
            values = set() if isinstance(answer, str) else set(map(_word, answer))
            return values == set(map(_word, expected))
        if isinstance(expected, dict):
            return set(answer) == set(expected) and all(
                same(answer[key], value, tolerance) for key, value in expected.items()
            )
        if isinstance(expected, tuple | list):
            pairs = zip(answer, expected, strict=True)
            return all(same(*pair, tolerance) for pair in pairs)
        one, two = _array(answer), _array(expected)
        one = one.reshape(()) if two.ndim == 0 and one.size == 1 else one
        return one.shape == two.shape and tolerance.close(one, two)
    except Exception:  # an answer may be any object
        return False


def _array(value: Any) -> np.ndarray | None:
    """Real numbers as an array; None of anything else."""
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu()
        value = (value.double() if value.is_floating_point() else value).numpy()
    try:
        array = np.asarray(value)
    except Exception:
        return None
    return array if array.dtype.kind in "biuf" else None


def _equal(one: np.ndarray | None, two: np.ndarray | None) -> bool:
    return one is None or two is None or np.array_equal(one, two)


def _word(value: Any) -> Any:
    """A word without case, a number or a truth value as Python has it."""
    value = value.item() if getattr(value, "ndim", None) == 0 else value
    return value.strip().casefold() if isinstance(value, str) else value


def _words(value: Any) -> str:
    """What an argument or an answer is, in a few words."""
    array = _array(value)
    if array is None or isinstance(value, list | tuple):
        return f"a {type(value).__name__}"
    return f"an array of shape {array.shape}" if array.ndim else f"the number {array:.4g}"


def _misfit(answer: Any, expected: Any) -> str:
    """What an answer is and what is asked for, if these are different things."""
    if callable(answer):
        return "A value is asked for, not a function."
    if isinstance(expected, bool | str) and not isinstance(_word(answer), bool | str):
        return f"One of the choices is asked for, as a word, not {_words(answer)}."
    if isinstance(expected, set | frozenset | dict | tuple | list):
        several = hasattr(answer, "__len__") and not isinstance(answer, str)
        if several and isinstance(expected, tuple | list) and len(answer) != len(expected):
            return f"{len(expected)} values are asked for, not {len(answer)}."
        return "" if several else f"Several values are asked for, not {_words(answer)}."
    one, two = _array(answer), _array(expected)
    if two is None or isinstance(expected, bool | str):
        return ""
    if one is None or (one.shape != two.shape and not (two.ndim == 0 and one.size == 1)):
        wanted = f"An array of shape {two.shape}" if two.ndim else "A number"
        return f"{wanted} is asked for, not {_words(answer)}."
    return "" if np.isfinite(one).all() else "Not all of its numbers are finite."


def _fault(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".rstrip(". :")


def _blank(answer: Any) -> bool:
    """Whether an answer is None, `...`, a function whose body is only that, or holds only such."""
    if isinstance(answer, tuple | list) and answer:
        return all(map(_blank, answer))
    code = getattr(answer, "__code__", None)
    empty = code is not None and any(code.co_code == one.__code__.co_code for one in _EMPTY)
    return answer is None or answer is ... or (empty and code.co_consts[-1:] == (None,))


def _bare() -> None: ...


def _described() -> None:
    """A docstring takes the first place among the constants of a function."""
    ...


_EMPTY = (_bare, _described)


def _record(name: str, passed: bool) -> tuple[int, str]:
    """Add a try to the progress file, until one passes; returns the misses so far, and a note.

    The note says what kept it from being stored.
    """
    path = Path(PROGRESS)
    try:
        student, seed = course()
        held = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        done = dict(held.get("exercises", {}))
        before = done.get(name, {"tries": 0, "passed": False})
        if before["passed"]:
            return 1, ""
        now = datetime.now(timezone.utc).isoformat(timespec="seconds")
        done[name] = {"tries": int(before["tries"]) + 1, "passed": passed, "time": now}
        text = json.dumps({"student": student, "seed": seed, "exercises": done}, indent=1)
        write_whole(path, lambda target: target.write_text(text + "\n", encoding="utf-8"))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return 1, f"Not stored: {PROGRESS} cannot be used ({error}); move it away."
    return done[name]["tries"], ""
