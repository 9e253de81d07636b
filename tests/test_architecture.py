"""The arrows between the rooms, read from the source."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests import ray_names

ROOT = Path(__file__).parents[1]
HOUSE = ("search_spaces", "trainables", "tuning")
FILES = sorted(p for part in HOUSE for p in (ROOT / part).rglob("*.py"))
MOST_MODULES = 14  # of one folder; more are not found at a glance
# Where much is passed on: more would be an object's state that has no object yet.
MOST_PARAMETERS = 6
PASSING_ROOMS = ("execution", "search", "sweep")

# A training's rooms, each with the rooms that it may see beside the light modules.
LIGHT = (
    "config",
    "errors",
    "files",
    "metrics",
    "names",
    "retired_keys",
    "network",
    "statuses",
    "text",
    "yaml_config",
)
TRAINABLES: dict[str, set[str]] = {
    "models": set(),
    "data": {"models"},
    "llm": {"data", "models"},
    "inputs": {"data", "llm", "models"},
    "training": {"data", "inputs", "llm", "models"},
    "packing": {"inputs", "llm", "training"},
    "workers": {"inputs", "llm", "packing", "training"},
    "migration": {"data", "inputs", "llm", "models", "training"},
}
# A sweep's rooms. Search and execution never see each other.
TUNING: dict[str, set[str]] = {
    "terminal": set(),
    "home": set(),
    "ray_internals": set(),
    "tune_edge": set(),
    "history": {"terminal"},
    "config": {"history", "terminal"},
    "monitors": {"history", "terminal"},
    "checks": {"config", "terminal"},
    "cost": {"config", "terminal"},
    "search": {"config", "history", "ray_internals", "tune_edge"},
    "execution": {"config", "history", "home", "ray_internals", "terminal", "tune_edge"},
    "sweep": {
        "checks",
        "config",
        "execution",
        "history",
        "monitors",
        "ray_internals",
        "search",
        "terminal",
        "tune_edge",
    },
    "verification": {"execution"},
    "one_training": {"checks", "execution", "monitors", "terminal"},
    "refit": {"history", "one_training", "sweep", "terminal"},
    "comparison": {"checks", "history", "terminal"},
}
TUNING["commands"] = set(TUNING)
TUNING["cli"] = {"commands", "terminal"}
# The two modules that use what is private in Ray, each with the names that a test looks for.
INTERNALS = {
    ROOT / "tuning" / "ray_internals.py": {w.name for w in ray_names.TUNING},
    ROOT / "trainables" / "workers" / "ray_internals.py": {w.name for w in ray_names.WORKERS},
}
PRIVATE_NAMES = set().union(*INTERNALS.values())
# Not public either, though no part of their names begins with an underscore.
PRIVATE_PATHS = ("ray.train.v2", "ray.tune.execution", "ray.tune.trainable", "ray.tune.tune")
PRIVATE_TEXTS = ("__internal_head__", *PRIVATE_PATHS)
# What a trainable may not know of.
ELSEWHERE = {"tuning", "search_spaces", "wandb", "optuna"}
# What the search spaces need of Python's own library.
STANDARD = {"__future__", "collections", "contextlib", "decimal", "math", "typing", "warnings"}
# Rooms without Ray and torch, by their modules; a `from` inside a function is no part of this.
WITHOUT_RAY_AND_TORCH = (
    *(f"trainables.{name}" for name in LIGHT),
    "trainables.training.checkpoint_files",
    "trainables.training.diagnosis",
    "trainables.training.reports",
    "trainables.packing.protocol",
    *(f"trainables.inputs.{path.stem}" for path in (ROOT / "trainables" / "inputs").glob("*.py")),
    *(f"tuning.{name}" for name in ("checks", "cli", "cost", "terminal")),
    *(
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for room in ("commands", "config", "history")
        for path in (ROOT / "tuning" / room).glob("*.py")
    ),
)


def imports(path: Path, top_level: bool = False) -> set[str]:
    """Modules that a file imports; with ``top_level`` only those loaded with it."""
    tree = ast.parse(path.read_text())
    nodes = tree.body if top_level else list(ast.walk(tree))
    found = {a.name for n in nodes if isinstance(n, ast.Import) for a in n.names}
    return found | {n.module for n in nodes if isinstance(n, ast.ImportFrom) and n.module}


def packages(modules: set[str]) -> set[str]:
    return {module.split(".")[0] for module in modules}


def rooms(modules: set[str], part: str) -> set[str]:
    """The rooms of ``part`` that modules belong to."""
    return {m.split(".")[1] for m in modules if m.startswith(f"{part}.")}


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_arrows(path: Path) -> None:
    part, *inside = path.relative_to(ROOT).with_suffix("").parts
    modules = imports(path)
    found = packages(modules)
    room = inside[0]
    match part:
        case "search_spaces":
            assert found <= {"pydantic", "yaml", "search_spaces"} | STANDARD
        case "trainables":
            assert not found & ELSEWHERE
            assert "ray" not in found or room == "workers"
            light = {"errors", "names"} if room == "models" else set(LIGHT)
            assert rooms(modules, part) <= light | TRAINABLES.get(room, set()) | {room}
        case "tuning" if room != "__init__":
            assert rooms(modules, part) <= TUNING[room] | {room}


@pytest.mark.parametrize("name", WITHOUT_RAY_AND_TORCH)
def test_light_modules_import_neither_ray_nor_torch(name: str) -> None:
    """With everything that they import in turn."""
    seen: set[str] = set()
    waiting = [name]
    while waiting:
        path = (ROOT / Path(*waiting.pop().split("."))).with_suffix(".py")
        if not path.is_file() or str(path) in seen:
            continue
        seen.add(str(path))
        modules = imports(path, top_level=True)
        assert not packages(modules) & {"torch", "ray", "transformers", "wandb", "optuna"}, path
        waiting += [m for m in modules if m.split(".")[0] in HOUSE]


def test_no_folder_is_crowded() -> None:
    folders = [path.parent for path in FILES if path.name != "__init__.py"]
    assert max(map(folders.count, folders)) <= MOST_MODULES


def changes_environment(node: ast.AST) -> bool:
    """Whether it sets a variable: ``os.environ[...] =``, ``del``, ``os.environ.update(...)``."""
    match node:
        case ast.Subscript(value=ast.Attribute(attr="environ"), ctx=ast.Store() | ast.Del()):
            return True
        case ast.Call(func=ast.Attribute(value=ast.Attribute(attr="environ"), attr=method)):
            return method in {"update", "setdefault", "pop", "popitem", "clear"}
        case ast.Attribute(attr="putenv" | "unsetenv"):
            return True
    return False


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_one_module_changes_the_environment_and_puts_it_back(path: Path) -> None:
    found = any(map(changes_environment, ast.walk(ast.parse(path.read_text()))))
    assert found == (path == ROOT / "tuning" / "execution" / "process_state.py")
    assert not any(m.startswith("unittest") for m in imports(path)), "no mocks in production"


def private_imports(tree: ast.AST) -> set[str]:
    """The names that a module takes from where nothing is public in Ray."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {a.name for a in node.names if _is_private(a.name)}
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "ray":
            module = node.module or ""
            found |= {a.name for a in node.names if _is_private(f"{module}.{a.name}")}
    return found


def _is_private(dotted: str) -> bool:
    """Whether a name of Ray is not public."""
    first, *rest = dotted.split(".")
    hidden = any(part.startswith("_") for part in rest)
    return first == "ray" and (hidden or dotted.startswith(PRIVATE_PATHS))


def private_uses(tree: ast.AST) -> set[str]:
    """The private names of Ray that a module imports, touches, overrides or writes as text."""
    found = private_imports(tree)
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(attr=name) | ast.FunctionDef(name=name) | ast.Name(id=name):
                found |= {name} & PRIVATE_NAMES
            case ast.Constant(value=str(text)):
                found |= {t for t in (*PRIVATE_TEXTS, *PRIVATE_NAMES) if text in (t, f"node:{t}")}
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_what_is_private_in_ray_is_used_in_two_modules(path: Path) -> None:
    tree = ast.parse(path.read_text())
    if path in INTERNALS:
        assert private_imports(tree) <= INTERNALS[path], "a test looks for each"
        assert private_uses(tree), "else it is not needed"
    else:
        assert not private_uses(tree), "take it from `ray_internals`, with the reason"


@pytest.mark.parametrize(
    "text",
    [
        "from ray._private.utils import x",
        "import ray._private",
        "from ray.tune import _x",
        "from ray.train.v2.api.callback import UserCallback",
        "trial.relative_logdir = 3",
        "def _trial_task_failure(self): ...",
        "share = {'node:__internal_head__': 1}",
        "getattr(trial, 'run_metadata')",
    ],
)
def test_private_names_are_found(text: str) -> None:
    assert private_uses(ast.parse(text))


@pytest.mark.parametrize("room", PASSING_ROOMS)
def test_no_function_has_too_many_parameters(room: str) -> None:
    for path in (ROOT / "tuning" / room).glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                all_of_them = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
                names = [a.arg for a in all_of_them if a.arg != "self"]
                assert len(names) <= MOST_PARAMETERS, f"{path.name}: {node.name}({names})"


def test_run_tune_calls_only_the_cli() -> None:
    assert imports(ROOT / "run_tune.py") == {"os", "sys", "tuning.cli"}
