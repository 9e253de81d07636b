"""The arrows between the rooms, read from the source."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ("search_spaces", "trainables", "tuning")
FILES = sorted(p for room in ROOMS for p in (ROOT / room).rglob("*.py"))
RAY_ALLOWED = {"trainables/sharing.py", "trainables/ray_train.py"}
LIGHT = ("config", "diagnosis", "errors", "metrics", "validation", "files", "checkpoint_files")


def imports(path: Path, top_level: bool = False) -> set[str]:
    """Modules that a file imports; with ``top_level`` only those loaded with it."""
    tree = ast.parse(path.read_text())
    nodes = tree.body if top_level else list(ast.walk(tree))
    found = {a.name for n in nodes if isinstance(n, ast.Import) for a in n.names}
    return found | {n.module for n in nodes if isinstance(n, ast.ImportFrom) and n.module}


def packages(modules: set[str]) -> set[str]:
    return {module.split(".")[0] for module in modules}


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_arrows(path: Path) -> None:
    name = str(path.relative_to(ROOT))
    modules = imports(path)
    found = packages(modules)
    match path.relative_to(ROOT).parts[0]:
        case "search_spaces":
            assert found <= {"__future__", "typing", "pydantic", "yaml", "collections"}
        case "trainables":
            assert not found & {"tuning", "search_spaces", "wandb", "optuna"}
            assert "ray" not in found or name in RAY_ALLOWED
    if name.startswith("trainables/models"):
        ours = {m for m in modules if m.startswith("trainables")}
        assert all(m.startswith("trainables.models") or m == "trainables.errors" for m in ours)


@pytest.mark.parametrize("name", LIGHT)
def test_light_modules_import_no_torch(name: str) -> None:
    modules = packages(imports(ROOT / "trainables" / f"{name}.py", top_level=True))
    assert not modules & {"torch", "ray", "transformers", "numpy"}


def test_run_tune_calls_only_the_cli() -> None:
    assert imports(ROOT / "run_tune.py") == {"sys", "tuning.cli"}
