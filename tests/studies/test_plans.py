"""Ablations as data: every shipped study is sound, and a wrong file is told in one sentence."""

import os
from itertools import pairwise

import pytest
import yaml

from labkit import methods
from labkit.core.config import BUDGETS
from labkit.data import catalogue
from labkit.studies import published
from labkit.studies import spec as plans

GOOD = {
    "title": "T",
    "question": "Q?",
    "paper": "dnfad",
    "source": "Table 7",
    "method": "dnfad",
    "data": ["procedural/gear"],
    "vary": {"blocks": [1, 2]},
    "base": "blocks=1",
}


def written(folder, name="mine", **changes):
    keys = {key: value for key, value in (GOOD | changes).items() if value is not None}
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(keys))
    return path


@pytest.mark.parametrize("name", plans.names())
@pytest.mark.parametrize("budget", list(BUDGETS))
def test_every_variant_of_every_study_is_a_config(name, budget):
    for task in plans.get(name).tasks(budget):
        spec = methods.resolve(task.method, task.data, budget, task.seed, task.set)
        for key, value in task.set.items():
            assert key == "preset" or spec.value(key) is not None or value in (None, "none")
        assert task.data == "-" or task.data in catalogue.names()


@pytest.mark.parametrize("name", plans.names())
def test_every_published_variant_exists(name):
    study = plans.get(name)
    rows = [row for p in study.published for row in published.rows(p.file, **p.where).variant]
    named = [row.published for row in study.rows if row.published]
    assert set(named) <= set(rows), set(named) - set(rows)
    assert study.base in [row.name for row in study.rows]
    assert study.source != "ours" or not named


def test_a_benchmark_is_all_its_datasets(tmp_path):
    study = plans.get(written(tmp_path, data=["btad", "elpv/mono"], vary=None, base="a",
                              variants=[{"name": "a"}], seeds=[0]))  # fmt: skip
    names = [task.data for task in study.tasks()]
    assert names == ["btad/01", "btad/02", "btad/03", "elpv/mono"]
    assert [task.data for task in study.tasks(data=["mpdd"])] == catalogue.members("mpdd")


def test_a_sweep_is_every_combination():
    keys = GOOD | {"vary": {"blocks": [1, 2], "clamp": [1.5, 1e-5]}, "base": "blocks=1, clamp=1.5"}
    study = plans.Study(name="s", **{**keys, "data": ("d",)})
    names = [row.name for row in study.rows]
    assert names == [f"blocks={b}, clamp={c}" for b in (1, 2) for c in ("1.5", "1e-5")]
    assert study.rows[3].set == {"blocks": 2, "clamp": 1e-5}


def test_settings_are_layered_and_fingerprints_follow_them(tmp_path):
    path = written(
        tmp_path,
        set={"clamp": 1.0, "hidden": 0.5},
        budgets={"quick": {"set": {"hidden": 0.25}, "seeds": [7]}},
    )
    study = plans.get(path)
    quick, laptop = study.tasks("quick"), study.tasks("laptop")
    assert [task.set for task in quick] == [
        {"clamp": 1.0, "hidden": 0.25, "blocks": b} for b in (1, 2)
    ]
    assert {task.seed for task in quick} == {7}
    assert {task.seed for task in laptop} == {0, 1, 2}
    assert len({task.fingerprint for task in quick + laptop}) == 8
    again = plans.get(written(tmp_path, "other", set={"clamp": 1.0, "hidden": 0.5}))
    first = again.tasks("laptop")[0]
    assert first.fingerprint == laptop[0].fingerprint, "the study's name decides nothing"


LAUGHS = "[&a [x, x]" + "".join(f", &{b} [*{a}, *{a}]" for a, b in pairwise("abcdefghijklmnopq"))
ODD = [  # what the file has besides, or in place of, the keys of a good one
    ("sed: {blocks: 1}", "did you mean 'seeds'|did you mean 'set'"),
    ("base: blocks=3", "base: Unknown variant 'blocks=3'"),
    ("expects: [{better: blocks=2, than: blocks=3}]", "expects: Unknown variant"),
    ("expects: [{better: a, than: b, bettr: 1}]", "did you mean 'better'"),
    ("budgets: {laptpo: {}}", "'laptpo' does not fit: input should be 'quick', 'laptop'"),
    ("budgets: {quick: {sets: {}}}", "did you mean 'set'"),
    ("variants: [{name: blocks=1}]", "two variants are named 'blocks=1'"),
    ("variants: [{name: x, sett: {}}]", "did you mean 'set'"),
    ("seeds: many", "seeds = 'many' does not fit"),
    ("seeds: []", "seeds = .* does not fit"),
    ("seeds: [-1]", "seeds.0 = '-1' does not fit"),
    ("seeds: [2020-99-99]", "seeds.0 = '2020-99-99' does not fit"),
    ("seeds: [!!int abc]", "invalid literal for int"),
    ("set: !!float _", "cannot be read"),
    (f"seeds: [{'9' * 5000}]", "the limit"),
    ("measure: time", "measure = 'time' does not fit"),
    ("set: {seed: 3}", "set: Unknown key 'seed'; use --seed 3"),
    ("set: {lr: .nan}", "Out of range float"),
    ("set: {1: 2}", r"set.1.* = '1' does not fit"),
    ("set: {lr: !!binary aGVsbG8=}", r"could not determine a constructor .*binary'.* line"),
    ("set: &c {lr: *c}", "Circular reference"),
    (f"set: {{lr: {LAUGHS}]}}", r"more than 30 times '\*'"),
    ("note: !foo bar", "could not determine a constructor for the tag '!foo'"),
    ("note: " + "[" * 5_000, "more than 600 times"),
    ("note: " + "[" * 500 + "]" * 500, "nested too deeply"),
    ("note: " + "x" * 40_000, "more than 32768 bytes"),
    (
        f"vary: {{{', '.join(f'k{k}: {[*range(9)]}' for k in range(9))}}}",
        "it makes 387420489 variants",
    ),
    ("figure: curve\naxis: lr", "axis = 'lr' does not fit"),
    ("published: [{file: ../../etc/passwd}]", "published: Unknown published table"),
    ("cells: [{name: x}]", "the key 'cells' of version 0.1 is now 'variants'"),
    ("title: again\ntitle: again", "the key title stands twice"),
    ("title: \0", "cannot be read"),
    ("question: [unclosed", "cannot be read"),
]


@pytest.mark.parametrize(("line", "sentence"), ODD)
def test_an_odd_file_is_one_sentence_that_names_it(tmp_path, line, sentence):
    path = written(tmp_path, **{line.split(":")[0]: None})
    path.write_text(path.read_text() + line)
    with pytest.raises(ValueError, match=sentence) as error:
        plans.get(path)
    assert str(path) in str(error.value)
    assert len(str(error.value)) < 1000
    assert "\n" not in str(error.value)


def test_aliases_dates_and_merged_keys_are_read(tmp_path):
    path = written(tmp_path, vary=None, base="a")
    text = "set: {<<: &few {epochs: 1}, lr: 1.0e-3}\nvariants: [{name: a, set: *few}]\n"
    path.write_text(f"{path.read_text()}note: 2020-01-01\n{text}")
    study = plans.get(path)
    assert study.set == {"epochs": 1, "lr": 1e-3}
    assert (study.rows[0].set, study.note) == ({"epochs": 1}, "2020-01-01")


def test_what_is_no_study_or_too_much_of_one_is_told(tmp_path):
    os.mkfifo(tmp_path / "pipe.yaml")
    (tmp_path / "list.yaml").write_text("- 1\n- 2")
    study = plans.get("dnfad-depth")
    assert {task.variant for task in study.tasks(variants=["blocks=2"])} == {"blocks=2"}
    for call, sentence in (
        (lambda: plans.get(tmp_path / "pipe.yaml"), "there is no such file"),
        (lambda: plans.get(tmp_path / "list.yaml"), "holds no keys"),
        (lambda: plans.get(written(tmp_path, data=None)), "'data' is missing"),
        (lambda: plans.get("dnfad-dept"), "did you mean 'dnfad-depth'"),
        (lambda: study.tasks(seeds=range(20_000)), "the most are 20000"),
        (lambda: study.tasks(seeds=[-1]), "seed=-1 does not fit"),
        (lambda: study.tasks(variants=["blocks=3"]), "Unknown variant of dnfad-depth 'blocks=3'"),
        (lambda: study.tasks("fast"), "Unknown budget"),
        (lambda: plans.get("dnfad-backbones").tasks("laptop", variants=["DINO"]),
         "no variant that runs at the budget laptop"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=sentence):
            call()
