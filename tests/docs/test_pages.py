"""The pages' links resolve, their commands exist, their examples are what the code does."""

from __future__ import annotations

import ast
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs.pages import PAGES, ROOT, anchors, blocks, commands
from tests.tuning.history.test_sweeps import write_sweep
from trainables.config import PretrainConfig
from tuning.cli import main, make_parser
from tuning.config.space import searchable_keys
from tuning.config.sweep import ASHA, SweepConfig
from tuning.search.halving import Halving

MOST_LINES = 150  # of the README: more is not read
LINK = re.compile(r"\]\(([^)\s]+)\)")
README = ROOT / "README.md"
DOCS = [page for page in PAGES if page.parent != ROOT / "benchmarks"]


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_resolve(page: Path) -> None:
    for link in LINK.findall(page.read_text()):
        if link.startswith("https://"):
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), f"{page.name}: {link}"
        assert not anchor or anchor in anchors(target), f"{page.name}: {link}"


def test_every_page_is_reached_from_the_readme() -> None:
    seen, waiting = set(), [README]
    while waiting:
        page = waiting.pop().resolve()
        if page in seen or page.suffix != ".md":
            continue
        seen.add(page)
        links = (link.partition("#")[0] for link in LINK.findall(page.read_text()))
        waiting += [page.parent / link for link in links if link and "://" not in link]
    assert seen == {page.resolve() for page in PAGES}


def test_the_readme_is_short() -> None:
    assert len(README.read_text().splitlines()) <= MOST_LINES


@pytest.mark.parametrize("page", DOCS, ids=lambda p: p.name)
def test_commands_exist_with_their_options(page: Path) -> None:
    errors = page.name == "troubleshooting.md"
    for command in () if errors else commands(page):
        words = shlex.split(command)
        options = make_parser().parse_args(words[words.index("run_tune.py") + 1 :])
        for override in getattr(options, "set", []):
            of_sweep = words[2] in ("launch", "resume", "validate")
            assert key_exists(override.partition("=")[0], of_sweep), command


FILE = re.compile(r"`((?:search_spaces|trainables|tuning|tests|docs|benchmarks)/[\w/.-]*)`")


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_files_that_a_page_names_are_there(page: Path) -> None:
    names = FILE.findall(page.read_text())
    assert [name for name in names if not (ROOT / name).exists()] == []


NAME = re.compile(r"`((?:search_spaces|trainables|tuning)(?:\.\w+)+)`")


def test_what_the_design_names_is_there() -> None:
    names = NAME.findall((ROOT / "docs" / "design.md").read_text())
    assert len(names) > 30
    assert [name for name in names if not name_exists(name)] == []


def name_exists(name: str) -> bool:
    """Whether a dotted name is a module, or stands in one: a class, a method, a function."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        path = ROOT.joinpath(*parts[:length])
        if path.is_dir():
            return length == len(parts)
        if path.with_suffix(".py").is_file():
            return defines(ast.parse(path.with_suffix(".py").read_text()), parts[length:])
    return False


def defines(node: ast.AST, names: list[str]) -> bool:
    if not names:
        return True
    kinds = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    inside = [n for n in ast.iter_child_nodes(node) if isinstance(n, kinds) and n.name == names[0]]
    return any(defines(found, names[1:]) for found in inside)


def key_exists(key: str, of_sweep: bool) -> bool:
    section, _, rest = key.partition(".")
    if not of_sweep:
        return rest in getattr(PretrainConfig(), section).model_dump()
    if section == "train" and rest:
        return key_exists(rest, of_sweep=False)
    if section == "search_space" and rest:
        return any(rest.startswith(f"{name}.") for name in searchable_keys())
    return section in SweepConfig.model_fields


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """With a finished sweep and a training that has been done; no network."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=":")
    write_sweep(tmp_path / "sweeps", "mine", FINISHED)
    (tmp_path / "outputs/pretrain_encoder/checkpoint_000001").mkdir(parents=True)
    return tmp_path


FINISHED = [{"event": "sweep", "state": "finished", "message": "", "time": 1.0}]
HOME = "/home/you/encoder-tuning"


def typed(page: Path) -> Iterator[tuple[list[str], str]]:
    """Each block with a prompt: its commands, and what the last one printed."""
    for block in blocks(page):
        lines = block.splitlines()
        given = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
        if given:
            yield given, "\n".join(line for line in lines if not line.startswith("$ "))


def test_the_ten_errors_are_what_is_printed(
    workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    seen = 0
    for given, printed in typed(ROOT / "docs" / "troubleshooting.md"):
        for preparation in given[:-1]:
            subprocess.run(["bash", "-c", preparation], check=True)
        words = shlex.split(given[-1])
        assert main(words[2:]) == 2, given[-1]
        said = capsys.readouterr().err.strip()
        for path in (str(ROOT), str(workplace)):
            said = said.replace(path, HOME)
        said = said.replace(f"{HOME}/run_tune.py", "run_tune.py")
        said = said.replace("HF_HUB_OFFLINE is set", "the hub cannot be reached from here")
        assert said == printed
        seen += 1
    assert seen == 10


def test_the_example_of_eight_trials_is_what_halving_decides() -> None:
    text = (ROOT / "docs" / "search.md").read_text()
    example = text[text.index("### An example of eight trials") :]
    rows = re.findall(r"^\| (\d) \|(.*)\|(.*)\|(.*)\|(.*)\| (.*) \|$", example, re.M)
    rungs = ASHA(grace_epochs=1).rungs(10)
    assert rungs == (1, 3, 9)
    halving = Halving(rungs, 3, group=4, num_trials=8)
    values = {int(n): [v.strip() for v in row] for n, *row, _ in rows}
    endings = {int(row[0]): row[-1] for row in rows}
    assert sorted(values) == list(range(8))
    for number, row in values.items():
        for epoch, value in zip(rungs, row, strict=False):
            if value:
                halving.report(number, epoch, float(value))
        halving.end(number)
    for number, row in values.items():
        reached = [epoch for epoch, value in zip(rungs, row, strict=False) if value]
        going_on = [epoch for epoch in reached if halving.goes_on(number, epoch)]
        if endings[number] == "finished":
            assert going_on == list(rungs)
        else:
            assert endings[number] == f"stopped early at epoch {reached[-1]}"
            assert going_on == reached[:-1]
    trained = [10 if e == "finished" else int(e.rpartition(" ")[2]) for e in endings.values()]
    assert f"The eight trials took {sum(trained)} epochs instead of 80" in example
