"""The house in figures: modules by folder, arrows between rooms, sizes, private names of Ray.

    python -m tests.house [ROOT]

Run it on two checkouts to compare them. `tests/test_architecture.py` holds what must not change.
"""

from __future__ import annotations

import ast
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from statistics import median, quantiles

HOUSE = ("search_spaces", "trainables", "tuning")
MANY_PARAMETERS = 6
Function = ast.FunctionDef | ast.AsyncFunctionDef


def modules(root: Path) -> list[Path]:
    return sorted(p for part in HOUSE for p in (root / part).rglob("*.py"))


def room(dotted: str) -> str:
    """A room is a folder of a part of the house, or a module that stands beside the folders."""
    return ".".join(dotted.split(".")[:2])


def arrows(root: Path) -> Counter[tuple[str, str]]:
    """How many modules of one room import from another."""
    found: Counter[tuple[str, str]] = Counter()
    for path in modules(root):
        here = room(".".join(path.relative_to(root).with_suffix("").parts))
        named = {n.module for n in ast.walk(ast.parse(path.read_text())) if _is_ours(n)}
        found.update({(here, room(name)) for name in named} - {(here, here)})
    return found


def _is_ours(node: ast.AST) -> bool:
    return isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in HOUSE


def functions(path: Path) -> Iterator[Function]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def parameters(function: Function) -> list[str]:
    """Names, without ``self`` and ``cls``."""
    a = function.args
    names = [x.arg for x in (*a.posonlyargs, *a.args, *a.kwonlyargs)]
    return [name for name in names if name not in ("self", "cls")]


def private_ray(path: Path) -> set[str]:
    """Modules of Ray with a private part in their path, as a file imports them."""
    nodes = [n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.ImportFrom)]
    names = {n.module or "" for n in nodes}
    return {
        n for n in names if n.startswith("ray") and any(p.startswith("_") for p in n.split("."))
    }


def main() -> None:
    root = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parents[1]
    paths = modules(root)
    folders = Counter(p.parent.relative_to(root) for p in paths if p.name != "__init__.py")
    print("modules by folder:", ", ".join(f"{f} {n}" for f, n in folders.most_common()))
    found = arrows(root)
    both_ways = sorted(pair for pair in found if pair[::-1] in found and pair[0] < pair[1])
    print(f"arrows between rooms: {len(found)}, both ways: {both_ways or 'none'}")
    lines = [len(p.read_text().splitlines()) for p in paths]
    print(f"lines: {sum(lines)} in {len(lines)} files, largest file {max(lines)}")
    made = [f for p in paths for f in functions(p)]
    sizes = [(f.end_lineno or f.lineno) - f.lineno + 1 for f in made]
    tenths = quantiles(sizes, n=10)
    print(f"functions: {len(made)}, lines median {median(sizes)}, p90 {tenths[-1]:.0f}, "
          f"largest {max(sizes)}")  # fmt: skip
    counts = [len(parameters(f)) for f in made]
    print(f"parameters: more than {MANY_PARAMETERS} in {sum(c > MANY_PARAMETERS for c in counts)}")
    for name in ("directory", "say"):
        print(f"functions with the parameter `{name}`: {sum(name in parameters(f) for f in made)}")
    places: defaultdict[str, list[str]] = defaultdict(list)
    for path in paths:
        for name in private_ray(path):
            places[name].append(str(path.relative_to(root)))
    files = {path for found in places.values() for path in found}
    print(f"private modules of Ray: {len(places)} in {len(files)} files")
    comments = sum(
        line.lstrip().startswith("#") for p in paths for line in p.read_text().splitlines()
    )
    print(f"whole-line comments: {comments} ({100 * comments / sum(lines):.1f} %)")


if __name__ == "__main__":
    main()
