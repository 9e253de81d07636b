"""Profiling tables as programs and people export them: what each oddity is answered with."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import write_data
from trainables.data.faults import MOST_SHOWN
from trainables.data.profiling import COLUMNS, Row, load_profiling
from trainables.data.registry import Tool, load_registry
from trainables.errors import DataError

Change = Callable[[str], str | bytes]
CELLS = {"input_size": 1, "cpu_core": 2, "cpu_mem_gb": 3, "gpu_sm": 4, "latency_ms": 6}


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, list[Tool]]:
    """The text of a table of 48 rows, lines ended by \\n, and its registry."""
    directory = write_data(tmp_path_factory.mktemp("good"))
    text = (directory / "profiling.csv").read_text()
    return text, load_registry(directory / "tools.json")


def load(path: Path, content: str | bytes, tools: list[Tool]) -> list[Row]:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return load_profiling(path, tools)


def refusal(path: Path, content: str | bytes, tools: list[Tool]) -> list[str]:
    """The faults that are told, without the file's name."""
    with pytest.raises(DataError) as caught:
        load(path, content, tools)
    head, *faults = caught.value.lines
    if not faults:
        return [head.removeprefix(f"{path}: ")]
    shown = [fault.strip() for fault in faults]
    more = int(shown[-1].split()[1]) if shown[-1].startswith("and ") else 0
    assert head == f"{path}: {len(shown) - bool(more) + more} faults:"
    return shown


def with_line(number: int, change: Callable[[str], str]) -> Change:
    def changed(text: str) -> str:
        lines = text.split("\n")
        lines[number - 1] = change(lines[number - 1])
        return "\n".join(lines)

    return changed


def with_cell(number: int, place: int, value: str) -> Change:
    def change(line: str) -> str:
        cells = line.split(",")
        cells[place] = value
        return ",".join(cells)

    return with_line(number, change)


def each_line(change: Callable[[int, str], str]) -> Change:
    """Number 0 is the header."""

    def changed(text: str) -> str:
        return "".join(change(i, line) + "\n" for i, line in enumerate(text.splitlines()))

    return changed


INDEX = "an index column? write the file without it (pandas: `to_csv(..., index=False)`)"
HEADER = ",".join(COLUMNS)
ONE_FAULT: list[tuple[str, Change, str]] = [
    (
        "pandas",
        each_line(lambda i, s: f"{i - 1 if i else ''},{s}"),
        f"column 1 has no name: {INDEX}",
    ),
    (
        "filtered",
        each_line(lambda i, s: f"{i * 7 if i else ''},{s}"),
        f"column 1 has no name: {INDEX}",
    ),
    (
        "pandas twice",
        each_line(lambda i, s: f"{i if i else 'Unnamed: 0'},{s}"),
        f"unknown column `Unnamed: 0`: {INDEX}",
    ),
    (
        "id at the end",
        each_line(lambda i, s: f"{s},{i + 5 if i else 'id'}"),
        f"unknown column `id`: {INDEX}",
    ),
    (
        "R",
        each_line(lambda i, s: f'"{i}",{s}' if i else s),
        "line 2 and all others have a value more than the header: row names? write the file "
        "without them (R: `row.names = FALSE`)",
    ),
    (
        "another column",
        each_line(lambda i, s: f"{s},{'a remark' if i else 'remark'}"),
        f"unknown column `remark`; allowed: {HEADER}",
    ),
    (
        "a column without a name",
        each_line(lambda i, s: f"{s},{'a remark' if i else ''}"),
        "column 8 has no name; give it one, or remove it",
    ),
    (
        "comma after the header",
        with_line(1, lambda s: f"{s},"),
        "column 8 has neither a name nor values: a trailing comma; remove it, in the rows as well",
    ),
    (
        "commas everywhere",
        each_line(lambda i, s: f"{s},,"),
        "column 8 has neither a name nor values: a trailing comma; remove it, in the rows as well",
    ),
    (
        "commas after rows",
        each_line(lambda i, s: f"{s}," if i in (2, 5, 6, 7, 8) else s),
        "lines 3, 6, 7 and 2 more: a trailing comma, which the header has not; remove it",
    ),
    (
        "emptied rows",
        lambda s: f"{s},,,,,,\n,,,,,,\n",
        "lines 50, 51: only commas, as of rows that were emptied; delete it",
    ),
    (
        "semicolons",
        lambda s: s.replace(",", ";"),
        "its values are separated by semicolons; write it with commas, and numbers with a point",
    ),
    (
        "tabs",
        lambda s: s.replace(",", "\t"),
        "its values are separated by tabs; write it with commas, and numbers with a point",
    ),
    (
        "bars",
        lambda s: s.replace(",", "|"),
        "its values are separated by bars; write it with commas, and numbers with a point",
    ),
    (
        "UTF-16",
        lambda s: s.encode("utf-16"),
        "cannot be read as CSV: it is encoded as UTF-16; save it as UTF-8 (a spreadsheet: export "
        "it as `CSV UTF-8`)",
    ),
    (
        "a workbook",
        lambda s: b"PK\x03\x04" + bytes(99),
        "cannot be read as CSV: it is a zip archive, as workbooks of Excel and LibreOffice are "
        "(a spreadsheet: export it as `CSV UTF-8`)",
    ),
    (
        "two files",
        lambda s: s + "\ufeff" + s,
        "line 50: the header again (two files put together?); delete it",
    ),
    (
        "capitals",
        lambda s: s.replace("cpu_core", "CPU_Core"),
        "column `CPU_Core` must be written `cpu_core`",
    ),
    (
        "a blank in a name",
        lambda s: s.replace("cpu_core", "cpu core"),
        "column `cpu core` must be written `cpu_core`",
    ),
    (
        "a mark in a name",
        lambda s: "\ufeff\ufeff" + s,
        "column `\\ufefftool` must be written `tool`: `\\ufefftool` has U+FEFF (ZERO WIDTH "
        "NO-BREAK SPACE) at position 1",
    ),
    (
        "a unit in a name",
        lambda s: s.replace("latency_ms", "latency [ms]"),
        "column `latency [ms]` must be written `latency_ms`",
    ),
    (
        "a typo in a name",
        lambda s: s.replace("latency_ms", "latncy_ms"),
        f"unknown column `latncy_ms` (did you mean `latency_ms`?); allowed: {HEADER}",
    ),
    (
        "no header",
        lambda s: s.split("\n", 1)[1],
        f"no header: line 1 is 'grep_logs,small,1,2,20,4,760.14', but must be {HEADER}",
    ),
    (
        "a title",
        lambda s: "Profiling 2024,,,,,,\n\n" + s,
        "line 1 is 'Profiling 2024,,,,,,', but the header stands in line 3; remove what is above "
        "it",
    ),
    (
        "sep=",
        lambda s: "sep=,\n" + s,
        "line 1 is 'sep=,', but the header stands in line 2; remove what is above it",
    ),
    ("a comment", lambda s: s + "# end\n", "line 50: a comment? a table has none; delete it"),
    (
        "an open quote",
        with_line(5, lambda s: f'"{s}'),
        "line 5: a quote is opened, but not closed in this line",
    ),
    (
        "a quote too many",
        with_line(5, lambda s: s.replace("grep_logs", '"grep_logs"s')),
        "line 5: something stands between a closing quote and the next separator",
    ),
    (
        "lines in quotes",
        each_line(lambda i, s: f'"{s}"'),
        "lines 1, 2, 3 and 46 more: in quotes as a whole; quotes belong around single values",
    ),
    (
        "a bare decimal comma",
        with_cell(5, 6, "1,5"),
        "line 5 has 8 values, but the header names 7; a comma within a value? numbers have a "
        "point, texts with commas have quotes",
    ),
    (
        "bare decimal commas",
        each_line(lambda i, s: s.rpartition(",")[0] + ",7,5" if i else s),
        "line 2, as every other, has 8 values, but the header names 7; a comma within a value? "
        "numbers have a point, texts with commas have quotes",
    ),
    (
        "the registry",
        lambda s: '[{"name": "a"}]',
        f"JSON (the registry?); the first line must be {HEADER}",
    ),
    ("an empty tool", with_cell(5, 0, " "), "line 5: tool is empty; name it"),
    (
        "an unknown tool",
        lambda s: s.replace("grep_logs", "grep_log"),
        "line 2: tool `grep_log` is not in the registry (did you mean `grep_logs`?); add it to "
        "`data.tool_registry` or remove its 16 rows",
    ),
    (
        "another registry's table",
        lambda s: s.replace("grep_logs", "a").replace("zip folder", "b").replace("\nr,", "\nc,"),
        "line 2: tool `a` is not in the registry, nor is another of the table's 3 tools; do "
        "`data.tool_registry` and `data.profiling_data` belong together?",
    ),
    (
        "another size",
        with_cell(5, 1, "Small"),
        "line 5: input_size is `Small` (did you mean `small`?), but must be one of small, medium, "
        "large",
    ),
    (
        "no size",
        with_cell(5, 1, ""),
        "line 5: input_size is empty, but must be one of small, medium, large",
    ),
]


@pytest.mark.parametrize(
    ("change", "said"), [case[1:] for case in ONE_FAULT], ids=[c[0] for c in ONE_FAULT]
)
def test_one_fault_is_one_line_that_says_what_it_is(
    change: Change, said: str, good: tuple[str, list[Tool]], tmp_path: Path
) -> None:
    text, tools = good
    assert refusal(tmp_path / "t.csv", change(text), tools) == [said]


def test_a_column_twice_and_another_missing_are_both_told(
    good: tuple[str, list[Tool]], tmp_path: Path
) -> None:
    text, tools = good
    text = text.replace(",gpu_sm", ",cpu_core", 1).replace(",gpu_mem_gb,latency_ms", ",x,y")
    assert refusal(tmp_path / "t.csv", text, tools)[:4] == [
        f"column `cpu_core` is there more than once; needed: {HEADER}",
        f"unknown column `x`; allowed: {HEADER}",
        f"unknown column `y`; allowed: {HEADER}",
        f"columns `gpu_sm`, `gpu_mem_gb`, `latency_ms` are missing; needed: {HEADER}",
    ]


SAME: list[tuple[str, Change]] = [
    ("mark", lambda s: "\ufeff" + s),
    ("CRLF", lambda s: s.replace("\n", "\r\n")),
    ("CR", lambda s: s.replace("\n", "\r")),
    ("no end", lambda s: s.rstrip("\n")),
    ("empty lines", lambda s: "\n\n" + s.replace("\n", "\n \n") + "\n\n"),
    ("blanks", lambda s: s.replace(",", " , ")),
    ("no-break blanks", lambda s: s.replace(",", "\u00a0,\u3000")),
    (
        "quotes",
        lambda s: "".join(
            ",".join(f'"{c}"' for c in line.split(",")) + "\n" for line in s.splitlines()
        ),
    ),
]


@pytest.mark.parametrize("change", [case[1] for case in SAME], ids=[case[0] for case in SAME])
def test_what_says_the_same_is_read_alike(
    change: Change, good: tuple[str, list[Tool]], tmp_path: Path
) -> None:
    text, tools = good
    assert load(tmp_path / "a.csv", change(text), tools) == load(tmp_path / "b.csv", text, tools)


@pytest.mark.parametrize(("in_registry", "in_table"), [("NFC", "NFD"), ("NFD", "NFC")])
@pytest.mark.parametrize("name", ["détecteur", "ガイド", "한국어 도구"])
def test_a_name_is_found_in_either_unicode_form(
    name: str, in_registry: str, in_table: str, good: tuple[str, list[Tool]], tmp_path: Path
) -> None:
    text, tools = good
    written = unicodedata.normalize(in_registry, name)
    tools = [Tool(written, "x"), *tools[1:]]
    text = text.replace("grep_logs", unicodedata.normalize(in_table, name))
    rows = load(tmp_path / "t.csv", text, tools)
    assert sum(row.tool_index == 0 for row in rows) == 16


def test_all_faults_of_a_table_are_told_at_once(
    good: tuple[str, list[Tool]], tmp_path: Path
) -> None:
    text, tools = good
    changes = [
        with_line(1, lambda s: s.replace("gpu_sm", "GPU sm")),
        with_cell(3, 2, "one"),
        with_cell(7, 4, "50%"),
        with_cell(9, 0, "zap"),
        with_cell(11, 6, ""),
        with_line(13, lambda s: f"{s},"),
        with_line(20, lambda s: HEADER),
        with_line(25, lambda s: ",,,,,,"),
        with_line(30, lambda s: "r,small,1"),
    ]
    for change in changes:
        text = str(change(text))
    assert refusal(tmp_path / "t.csv", text, tools) == [
        "column `GPU sm` must be written `gpu_sm`",
        "line 3: cpu_core is `one`, but must be a number",
        "line 7: gpu_sm is `50%`, but must be a number: a percent sign; write 50",
        "line 9: tool `zap` is not in the registry; add it to `data.tool_registry` or remove the "
        "row",
        "line 11: latency_ms is empty, but must be a number: a missing value; measure it, or "
        "remove the row",
        "line 13: a trailing comma, which the header has not; remove it",
        "line 20: the header again (two files put together?); delete it",
        "line 25: only commas, as of rows that were emptied; delete it",
        "line 30 has 3 values, but the header names 7",
    ]


def test_a_file_of_excel_is_told_with_all_that_is_wrong_in_it(
    good: tuple[str, list[Tool]], tmp_path: Path
) -> None:
    """UTF-16, tabs and decimal commas, as `Unicode Text` of a German Excel has them."""
    text, tools = good
    content = text.replace(".", "#").replace(",", "\t").replace("#", ",").encode("utf-16")
    said = refusal(tmp_path / "t.csv", content, tools)
    assert "UTF-16" in said[0]
    assert "tabs" in said[1]
    assert "cpu_mem_gb is `7,5`, but must be a number: a decimal comma? write 7.5" in "".join(said)
    assert "latency_ms is `760,14`" in "".join(said)


def test_of_many_faults_the_first_of_every_kind_is_shown(
    good: tuple[str, list[Tool]], tmp_path: Path
) -> None:
    text, tools = good
    for number in range(2, 40):
        text = str(with_cell(number, 6, "?")(text))
    text = str(with_cell(45, 4, "50 %")(text))
    said = refusal(tmp_path / "t.csv", text, tools)
    assert len(said) == MOST_SHOWN + 1
    assert [line.split(":")[0] for line in said[:3]] == ["line 2", "line 3", "line 4"]
    assert said[-2].startswith("line 45: gpu_sm is `50 %`")
    assert said[-1] == "and 29 more"


def test_an_unknown_tool_is_one_fault_however_many_rows_it_has(
    good: tuple[str, list[Tool]], tmp_path: Path
) -> None:
    text, tools = good
    said = refusal(
        tmp_path / "t.csv", text.replace("zip folder", "tar").replace("\nr,", "\nR,"), tools
    )
    assert [line.split(";")[0] for line in said] == [
        "line 18: tool `tar` is not in the registry",
        "line 34: tool `R` is not in the registry (did you mean `r`?)",
    ]


FAULTY = {
    "tool": ["zap", ""],
    "input_size": ["huge", ""],
    **{name: ["50 %", "NA", "4 GB", "1,5", "", "-1", "two"] for name in COLUMNS[2:]},
}


@pytest.mark.usefixtures("character_tables")
@given(data=st.data())
def test_every_faulty_line_is_named(
    data: st.DataObject, good: tuple[str, list[Tool]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    text, tools = good
    numbers = data.draw(st.lists(st.integers(2, 49), min_size=2, max_size=MOST_SHOWN, unique=True))
    for number in numbers:
        name = data.draw(st.sampled_from(COLUMNS))
        value = data.draw(st.sampled_from(FAULTY[name]))
        text = str(with_cell(number, COLUMNS.index(name), f'"{value}"')(text))
    said = refusal(tmp_path_factory.mktemp("x") / "t.csv", text, tools)
    named = {int(line.split()[1].rstrip(":")) for line in said}
    zapped = [n for n in numbers if text.split("\n")[n - 1].startswith('"zap"')]
    assert named == set(numbers) - set(zapped) | set(sorted(zapped)[:1])


def test_a_large_table_is_read_in_seconds(good: tuple[str, list[Tool]], tmp_path: Path) -> None:
    text, tools = good
    header, rows = text.split("\n", 1)
    assert len(load(tmp_path / "t.csv", f"{header}\n{rows * 1000}", tools)) == 48_000
