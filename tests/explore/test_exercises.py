"""Every exercise accepts its answer, refuses its mistakes, and survives whatever is submitted."""

import json
import math

import numpy as np
import pytest
import torch

from labkit import check
from labkit.explore import exercise, exercises, given, solution
from labkit.explore.check import PROGRESS, Wrong, judge

NAMES = exercises.names()
SEEDS = (0, 1, 2)


@pytest.fixture(autouse=True)
def _own_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LABKIT_COURSE_SEED", raising=False)


@pytest.fixture(params=SEEDS)
def seed(request, monkeypatch):
    monkeypatch.setenv("LABKIT_COURSE_SEED", str(request.param))
    return request.param


@pytest.fixture
def lesson(tmp_path, monkeypatch):
    """Write exercises of lesson 00 of one's own; returns the first."""
    monkeypatch.setattr(exercises, "FOLDER", tmp_path)

    def write(**block):
        block = {"level": "compute", "ask": "?", "hints": ["one", "two"]} | block
        (tmp_path / "00.yaml").write_text(json.dumps({"00.1": block}))
        return exercises.get("00.1")

    return write


def rounded(value, digits):
    """Each number of an answer as a student writes it down."""
    if isinstance(value, float | np.floating):
        return float(f"{value:.{digits}g}")
    if isinstance(value, np.ndarray | torch.Tensor):
        flat = [rounded(one, digits) for one in np.asarray(value, float).ravel()]
        return np.reshape(flat, np.shape(value))
    if isinstance(value, list | tuple):
        return type(value)(rounded(one, digits) for one in value)
    if isinstance(value, dict):
        return {key: rounded(one, digits) for key, one in value.items()}
    return value


def stored():
    with open(PROGRESS, encoding="utf-8") as file:
        return json.load(file)


@pytest.mark.parametrize("name", NAMES)
def test_its_answer_passes_and_each_mistake_fails_with_its_message(name, seed):
    one = exercises.get(name)
    right = one.answer(one.solution)
    judge(one, right)
    judge(one, rounded(right, max(3, one.digits or 0)))
    for mistake in one.wrong:
        with pytest.raises(Wrong) as caught:
            judge(one, one.answer(mistake["code"]))
        assert str(caught.value) == mistake["message"]


@pytest.mark.parametrize("name", NAMES)
def test_it_is_written_for_a_student(name):
    one = exercises.get(name)
    assert one.level in exercises.STARS
    assert len(one.hints) >= 2
    assert name.partition(".")[0].isdigit()
    for card in (exercise(name), solution(name)):
        assert card._repr_html_().count("<div") == 1


@pytest.mark.parametrize("name", NAMES)
def test_unanswered_is_grey_and_stores_nothing(name, tmp_path):
    def empty(x):
        """What is asked for."""
        ...

    for blank in (None, ..., empty, (empty, None)):
        assert check(name, blank).tone == "open"
    assert not (tmp_path / PROGRESS).exists()


class Odd:
    def __eq__(self, other):
        raise RuntimeError("not comparable")

    __hash__ = None


def change(x, *more):
    x += 1
    return x


ODD = {
    "words": "about two", "nan": math.nan, "infinite": math.inf, "shape": np.zeros((7, 3, 2)),
    "set": {1, "a"}, "dict": {"a": torch.ones(2)}, "empty": [], "nested": [[1], [1, 2]],
    "object": Odd(), "a class": Odd, "complex": 1j, "gradient": torch.ones(3, requires_grad=True),
    "raises": lambda *x: 1 / 0, "leaves": lambda *x: exit(3), "any": lambda *x: Odd(),
    "takes nothing": lambda: 1, "changes": change, "half": torch.ones(2, dtype=torch.bfloat16),
}  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_an_odd_answer_gives_a_card(name):
    for odd, answer in ODD.items():
        card = check(name, answer)
        assert card.tone in ("wrong", "open"), odd
        assert "not checked" not in card.title, (odd, card)
        assert card._repr_html_()


def test_an_exercise_that_is_not_there_gives_a_card():
    assert "did you mean" in repr(check("01.9", 3))
    for name in ("", "x/../01", None, 1.5):
        assert check(name, 3).tone == "open"
    with pytest.raises(ValueError, match=r"Unknown exercise '77\.1'"):
        exercise("77.1")


def test_hints_follow_the_misses_and_the_third_unfolds_the_solution(lesson):
    lesson(solution="answer = 0.5")
    first, second, third = (check("00.1", 0.6) for _ in range(3))
    assert "one" in repr(first)
    assert "two" in repr(second)
    assert not second.folded
    assert "answer = 0.5" in third.folded[0][1]
    assert "<details open>" in third._repr_html_()


def test_progress_is_kept_until_an_exercise_is_passed(lesson, tmp_path):
    lesson(solution="answer = 0.5")
    (tmp_path / "course.json").write_text('{"student": "Ada", "seed": 3}')
    check("00.1", 0.6)
    assert stored()["exercises"]["00.1"]["passed"] is False
    assert check("00.1", 0.5).tone == "right"
    before = stored()
    assert check("00.1", 0.7).tone == "wrong"
    assert stored() == before
    assert (before["student"], before["seed"]) == ("Ada", 3)
    assert before["exercises"]["00.1"]["tries"] == 2
    assert before["exercises"]["00.1"]["time"][:2] == "20"
    assert {path.name for path in tmp_path.iterdir()} == {"00.yaml", "course.json", PROGRESS}


@pytest.mark.parametrize("text", ["no JSON", "[]", '{"exercises": {"00.1": 3}}'])
def test_a_damaged_progress_file_is_kept_and_named(lesson, tmp_path, text):
    lesson(solution="answer = 0.5")
    (tmp_path / PROGRESS).write_text(text)
    card = check("00.1", 0.5)
    assert card.tone == "right"
    assert "Not stored: progress.json" in repr(card)
    assert (tmp_path / PROGRESS).read_text() == text


@pytest.mark.parametrize("text", ["no JSON", '{"student": "a"}', '{"student": "a", "seed": "b"}'])
def test_a_damaged_course_file_is_named(tmp_path, text):
    (tmp_path / "course.json").write_text(text)
    with pytest.raises(ValueError, match=r"course.json holds no seed"):
        given(NAMES[0])
    assert "course.json holds no seed" in repr(check(NAMES[0], 1))


def test_each_student_has_numbers_of_their_own(monkeypatch, tmp_path):
    held = []
    for seed in range(8):
        monkeypatch.setenv("LABKIT_COURSE_SEED", str(seed))
        held.append(given("01.1").x)
        assert str(held[-1]) in repr(exercise("01.1"))
        assert held[-1] == given("01.1").x
    assert len(set(held)) > 4
    monkeypatch.setenv("LABKIT_COURSE_SEED", "5")
    (tmp_path / "course.json").write_text('{"student": "Ada", "seed": 0}')
    assert given("01.1").x == held[0]


@pytest.mark.parametrize(
    ("expected", "right", "wrong"),
    [
        ("2 / 3", [0.667, 0.6666667, np.float32(2 / 3), torch.tensor([2 / 3])], [0.65, 0.68, "a"]),
        ("99", [99, 99.0, np.int64(99)], [99.5, 98, 100]),
        ("0.0", [0, 0.0, 1e-12], [0.001]),
        ("'yes'", ["yes", " Yes"], ["no", True, 1]),
        ("True", [True, np.bool_(True)], [False, "yes"]),
        ("{0, 2}", [{0, 2}, [2, 0], (0, 2), torch.tensor([0, 2])], [{0}, {0, 1, 2}, "02", 2]),
        ("np.array([1.0, 20.0])", [[1, 20.1], torch.tensor([1.0, 20])], [[20, 1], [[1, 20]], 1]),
        ("(1.5, 'a')", [(1.5, "a"), [1.51, "A"]], [(1.5,), (1.5, "b"), 1.5]),
        ("{'a': 2.0}", [{"a": 2}], [{"a": 3}, {"b": 2}, 2]),
    ],
)
def test_what_counts_as_the_same(lesson, expected, right, wrong):
    one = lesson(solution=f"answer = {expected}")
    for answer in right:
        judge(one, answer)
    for answer in wrong:
        with pytest.raises(Wrong):
            judge(one, answer)


def test_digits_are_asked(lesson):
    one = lesson(solution="answer = 0.63662", digits=3)
    for answer in (0.637, 0.6366, 0.63662):
        judge(one, answer)
    for answer in (0.64, 0.636, 0.638):
        with pytest.raises(Wrong):
            judge(one, answer)


def test_a_function_is_checked_on_inputs_that_it_never_saw(lesson):
    one = lesson(
        level="code",
        inputs="inputs = [(torch.tensor(rng.normal(size=4)),) for _ in range(10)]",
        solution="answer = lambda x: x.exp()",
        wrong=[{"message": "no exponent", "code": "answer = lambda x: x"}],
    )
    calls = []

    def spy(x):
        calls.append(x)
        return x.exp()

    judge(one, spy)
    judge(one, spy)
    assert not torch.equal(calls[0], calls[10])
    cases = {
        "no exponent": lambda x: 1 * x,
        "changes its input": lambda x: x.exp_(),
        r"shape \(4,\) is asked for": lambda x: x.exp().sum(),
        "raises ZeroDivisionError": lambda x: 1 / 0,
        "for 0 of 10 hidden inputs": lambda x: x.exp() + 1,
        "not an array of shape": torch.ones(4),
    }
    for message, answer in cases.items():
        with pytest.raises(Wrong, match=message):
            judge(one, answer)
    assert "`return` missing" in repr(check("00.1", lambda x: print(x)))


def test_a_test_of_its_own_says_what_is_wrong(lesson):
    one = lesson(
        given="n = 3",
        solution="answer = lambda x: x",
        test="if submitted(n) != n:\n    raise Wrong('Not the identity.')",
    )
    judge(one, lambda x: x)
    with pytest.raises(Wrong, match="Not the identity"):
        judge(one, lambda x: 2 * x)
    with pytest.raises(Wrong, match="stops with TypeError"):
        judge(one, lambda: 1)


def test_a_text_takes_its_data_and_leaves_latex_alone(lesson):
    one = lesson(given="n = 3\nx = 0.256", ask="$e^{z}$, {n}, {x:.2f}, {y}", solution="answer = 1")
    assert one.fill(one.ask) == "$e^{z}$, 3, 0.26, {y}"
    shown = exercise("00.1")._repr_html_()
    assert r"\(e^{z}\)" in shown
    assert "holds your <code>n</code>, <code>x</code>" in shown
    assert "&lt;b&gt;" in exercises.html("<b>")


@pytest.mark.parametrize(
    ("block", "message"),
    [({"hint": ["a"], "solution": ""}, "did you mean 'hints'"), ({}, "has no solution")],
)
def test_a_block_that_does_not_fit_is_named(lesson, block, message):
    with pytest.raises(ValueError, match=message):
        lesson(**block)
