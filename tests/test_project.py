"""What the project promises about itself: one list of packages, no traces of a machine."""

import ast
import doctest
import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent
try:
    import tomllib
except ImportError:  # Python 3.10
    import tomli as tomllib

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def tracked(*suffixes):
    done = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    names = done.stdout.split() or [str(p.relative_to(ROOT)) for p in ROOT.glob("labkit/**/*.py")]
    return [ROOT / name for name in names if name.endswith(suffixes) and (ROOT / name).is_file()]


def test_conda_environment_is_in_step_with_the_project():
    packages = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    pip = next(entry["pip"] for entry in packages if isinstance(entry, dict))
    assert f"python{PROJECT['requires-python']}" in packages
    extras = re.fullmatch(r"-e \.\[(.*)\]", pip[0])[1].split(",")
    assert extras == ["elpv", "textiles", "ray", "book", "dev"]
    assert set(extras) < set(PROJECT["optional-dependencies"])
    assert f".[{','.join(extras)}]" in (ROOT / "Makefile").read_text()


def test_every_import_is_declared():
    known = {"sklearn": "scikit-learn", "yaml": "pyyaml", "PIL": "pillow"}
    known["markdown_it"] = "markdown-it-py"
    declared = _packages(PROJECT["dependencies"])
    extras = _packages(text for one in PROJECT["optional-dependencies"].values() for text in one)
    for path in tracked(".py"):
        if path.parts[len(ROOT.parts)] not in ("labkit", "apps"):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            modules = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                modules = [node.module]
            for module in {name.split(".")[0] for name in modules}:
                package = known.get(module, module).lower().replace("-", "_")
                own = module in ("labkit", "labkit_apps") or module in sys.stdlib_module_names
                optional = package in extras and node.col_offset > 0  # only when it is asked for
                assert own or package in declared or optional, f"{path.name} imports {module}"


def _packages(texts):
    names = [re.split(r"[\[<>=~ ]", text)[0].lower() for text in texts]
    return {name.replace("-", "_") for name in names}


ORDER = [  # as the data flows
    "core", "data", "features", "flows", "methods", "evaluation", "training", "figures", "studies",
    "explore",
]  # fmt: skip


def test_a_package_imports_only_from_those_above_it():
    for place, package in enumerate(ORDER):
        for path in (ROOT / "labkit" / package).rglob("*.py"):
            for used in _used(path):
                if used in ORDER:
                    assert ORDER.index(used) <= place, f"{path.relative_to(ROOT)} imports {used}"


def _used(path):
    """Packages of labkit that a file imports."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("labkit"):
            parts = node.module.split(".")
            yield from [parts[1]] if len(parts) > 1 else [alias.name for alias in node.names]


def test_only_flows_imports_freia():
    users = [
        path
        for path in (ROOT / "labkit").rglob("*.py")
        if re.search(r"(import|from) FrEIA", path.read_text())
    ]
    assert {path.relative_to(ROOT / "labkit").parts[0].removesuffix(".py") for path in users} == {
        "flows"
    }


@pytest.mark.parametrize("word", ["/home/", "/root/", "/tmp/", "/work/"])
def test_no_file_names_a_path_of_a_machine(word):
    this = Path(__file__).name
    for path in tracked(".py", ".md", ".toml", ".yml", ".ipynb", ".yaml", "Makefile"):
        if path.name not in (this, "test_notebooks.py"):
            assert word not in path.read_text(), path


def test_files_keep_to_their_size():
    for folder in ("labkit", "apps"):
        for path in (ROOT / folder).rglob("*.py"):
            assert len(path.read_text().splitlines()) <= 400, path


def test_every_package_is_installed():
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    folders = {
        ".".join(path.parent.relative_to(ROOT).parts)
        for folder in ("labkit", "apps")
        for path in (ROOT / folder).rglob("__init__.py")
    }
    assert set(listed) == {re.sub(r"^apps\b", "labkit_apps", folder) for folder in folders}


WORDS = {"told", "found", "drawn", "known", "said", "seen", "judged", "kind", "eyes", "look"}


def test_a_variable_is_a_noun_that_says_what_it_holds():
    for path in tracked(".py"):
        if path.parts[len(ROOT.parts)] not in ("labkit", "apps"):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            name = getattr(node, "id", getattr(node, "arg", getattr(node, "name", None)))
            if isinstance(node, ast.keyword | ast.alias | ast.Attribute) or not isinstance(
                name, str
            ):
                continue
            assert name.strip("_").lower() not in WORDS, f"{path.name}:{node.lineno} {name}"


def _examples():
    names = [path for path in tracked(".py") if ">>> " in path.read_text()]
    for path in names:
        parts = list(path.relative_to(ROOT).with_suffix("").parts)
        if parts[0] in ("labkit", "apps"):
            yield ".".join(["labkit_apps" if parts[0] == "apps" else "labkit", *parts[1:]])


@pytest.mark.parametrize("module", sorted(_examples()))
def test_examples_in_docstrings_are_true(module):
    result = doctest.testmod(importlib.import_module(module))
    assert result.attempted > 0
    assert result.failed == 0
