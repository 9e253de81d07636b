"""Registries and tables as people and programs write them, in every language, some quite wrong."""

from __future__ import annotations

import copy
import json
import unicodedata
from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

from tests.conftest import TOOLS
from tests.fuzz.pieces import Case, cut, odd_bytes, often, scalars, values
from trainables.data.profiling import COLUMNS

# What stands in texts that are written or copied somewhere, most of it harmless.
PARTS = [
    *"a Z 0 _ - . é ß ﬁ ½ ı а Ω 表 画像 ガ 한 क़ عربي תּ".split(),
    "e\u0301", "\u00a0", "\u3000", "\u202f", "\u2009", " ", "  ", "\u00ad", "\u200b", "\u200c",
    "\u200d", "\U0001f469\u200d\U0001f4bb", "\u2764\ufe0f", "\u200e", "\u200f", "\u202e", "\u2067",
    "\ufeff", "\u2060", "\u2028", "\u0301", "\ue000", "\ufffe", "\U0001fae8", "\U000e0041",
    '"', "'", "“", ",", ";", "|", "{", "%s", "`", "\\",
]  # fmt: skip
REFUSED = ["\0", "\x07", "\x1b[2J", "\x7f", "\x85", "\x93", "\ud800", "\udce9"]
BREAKS = ["\t", "\n", "\r\n", "\r", "\u2029"]
FORMS = ("NFC", "NFD", "NFKC", "NFKD")

usual_texts = st.lists(st.sampled_from(PARTS), min_size=1, max_size=6).map("".join)
descriptions = st.lists(st.sampled_from(PARTS + BREAKS), min_size=1, max_size=9).map("".join)
odd_texts = st.lists(st.sampled_from(PARTS + BREAKS + REFUSED), max_size=6).map("".join)
JSON_ENCODINGS = ["utf-8"] * 6 + ["utf-8-sig", "utf-8-sig", "utf-16", "utf-16-le", "latin-1"]


@st.composite
def registries(draw: DrawFn) -> Case:
    entries: list[Any] = copy.deepcopy(TOOLS)
    for _ in range(draw(st.integers(0, 3))):
        place = draw(st.integers(0, len(entries) - 1))
        kinds = ["replace", "key", "name", "drop", "again", "form", "text", "more", "odd"]
        change = draw(st.sampled_from([*kinds, "text", "more"]))
        match change:
            case "replace":
                entries[place] = draw(values)
            case "key":
                entries[place] = {**TOOLS[0], draw(st.text(max_size=6)): draw(values)}
            case "name":
                entries[place] = {"name": draw(scalars), "description": draw(scalars)}
            case "drop" if len(entries) > 1:
                entries.pop(place)
            case "again" | "form":
                entries.append(_in_another_form(entries[place], draw(st.sampled_from(FORMS))))
            case "text" if isinstance(entries[place], dict):
                entries[place]["description"] = draw(descriptions)
            case "odd" if isinstance(entries[place], dict):
                entries[place][draw(st.sampled_from(["name", "description"]))] = draw(odd_texts)
            case _:
                entries.append({"name": draw(usual_texts), "description": draw(descriptions)})
    whole = draw(st.sampled_from([entries] * 9 + [{"tools": entries}]))
    text = json.dumps(whole, ensure_ascii=draw(st.booleans()))
    encoded = encode(text, draw(st.sampled_from(JSON_ENCODINGS)))
    lines = "\n".join(map(json.dumps, entries)).encode()
    otherwise = (
        cut(encoded)
        | odd_bytes
        | st.sampled_from([lines, text[:-1].encode("utf-8", "replace") + b",]"])
    )
    return Case(["--config", "good.yaml"], {"tools.json": draw(often(encoded, otherwise))})


def _in_another_form(entry: Any, form: str) -> Any:
    return {
        key: unicodedata.normalize(form, value) if isinstance(value, str) else value
        for key, value in entry.items()
    } if isinstance(entry, dict) else entry  # fmt: skip


def encode(text: str, encoding: str) -> bytes:
    """Halves of surrogate pairs as far as the encoding has them."""
    return text.encode(encoding, "surrogatepass" if encoding.startswith("utf") else "replace")


cells = st.one_of(
    st.sampled_from([t["name"] for t in TOOLS]),
    st.sampled_from(["small", "medium", "large", "1", "2.5", "-1", "nan", "inf", "1e999", "0"]),
    st.sampled_from(["", " 4 ", "1,5", '"', "\u0661", "1_0", "=1+1", "0x10", "1e3"]),
    st.sampled_from(["50%", "4 GB", "120ms", "1.234,5", "1 234", "\u22125", "2-Jan", "#N/A", "'4"]),
    st.sampled_from(["NA", "Small", "grep logs", "Grep_Logs", "gr\u0435p_logs", "zip\u00a0folder"]),
    st.floats().map(str),
    st.text(max_size=6),
    usual_texts,
    odd_texts,
)
Lines = list[list[Any]]


def index_column(lines: Lines) -> Lines:
    return [[i - 1 if i else "", *line] for i, line in enumerate(lines)]


def named_index(lines: Lines) -> Lines:
    return [[i if i else "Unnamed: 0", *line] for i, line in enumerate(lines)]


def row_names(lines: Lines) -> Lines:
    return [[f'"{i}"', *line] if i else line for i, line in enumerate(lines)]


def last_commas(lines: Lines) -> Lines:
    return [[*line, ""] for line in lines]


def emptied_rows(lines: Lines) -> Lines:
    return [*lines, *[[""] * len(COLUMNS)] * 2]


def header_again(lines: Lines) -> Lines:
    return lines[:9] + lines[:1] + lines[9:]


def title(lines: Lines) -> Lines:
    return [["Profiling 2024", *[""] * (len(COLUMNS) - 1)], *lines]


def capitals(lines: Lines) -> Lines:
    return [[str(name).replace("_", " ").title() for name in lines[0]], *lines[1:]]


def no_header(lines: Lines) -> Lines:
    return lines[1:]


def percents(lines: Lines) -> Lines:
    return [[f"{x}%" if i and j == 4 else x for j, x in enumerate(s)] for i, s in enumerate(lines)]


def decimal_commas(lines: Lines) -> Lines:
    return [[str(cell).replace(".", ",") for cell in line] for line in lines]


def copies(lines: Lines) -> Lines:
    return lines + lines[1:9]


def quotes(lines: Lines) -> Lines:
    return [['"' + str(cell).replace('"', '""') + '"' for cell in line] for line in lines]


def blanks(lines: Lines) -> Lines:
    return [[f" {cell}\u00a0" for cell in line] for line in lines]


HABITS: list[Callable[[Lines], Lines]] = [
    index_column, named_index, row_names, last_commas, emptied_rows, header_again, title, capitals,
    no_header, percents, decimal_commas, copies, copies, quotes, quotes, blanks, blanks,
]  # fmt: skip
ENDS = ["\n", "\r\n", "\r", "\n\n", "\n \n"]
SEPARATORS = [","] * 9 + [";", "\t", "|", " "]
TABLE_ENCODINGS = ["utf-8"] * 8 + ["utf-8-sig", "utf-8-sig", "utf-16", "utf-16-be", "cp1252"]


def good_lines(names: list[str]) -> Lines:
    rows = [[name, "small", i, 2, 20, 4, 10.5] for name in names for i in (1, 2, 4, 8)]
    return [list(COLUMNS), *rows]


@st.composite
def table(draw: DrawFn, names: list[str]) -> bytes:
    """A table of these tools, with a habit or two of programs, and now and then a slip."""
    lines = good_lines(names)
    for habit in draw(st.just([]) | st.lists(st.sampled_from(HABITS), max_size=2)):
        lines = habit(lines)
    for _ in range(draw(often(0, st.integers(1, 3)))):
        line = lines[draw(st.integers(0, len(lines) - 1))]
        if line:
            line[draw(st.integers(0, len(line) - 1))] = draw(cells)
    for _ in range(draw(often(0, st.just(1)))):
        lines[draw(st.integers(0, len(lines) - 1))] = draw(st.lists(cells, max_size=9))
    kept = draw(st.integers(0, len(lines))) if draw(st.integers(0, 9)) == 0 else len(lines)
    end, separator = draw(st.sampled_from(ENDS)), draw(st.sampled_from(SEPARATORS))
    text = end.join(separator.join(map(str, line)) for line in lines[:kept])
    whole = encode(text, draw(st.sampled_from(TABLE_ENCODINGS)))
    return draw(often(whole, cut(whole) | odd_bytes))


def tables() -> SearchStrategy[Case]:
    found = table([tool["name"] for tool in TOOLS])
    return found.map(lambda content: Case(["--config", "good.yaml"], {"profiling.csv": content}))


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


@st.composite
def both_files(draw: DrawFn) -> Case:
    """Tools of any language, written in the table in whatever form its program chose."""
    usual = usual_texts.map(lambda text: text.replace("\u2028", " "))
    names = [f"{i}{draw(often(draw(usual), odd_texts))}" for i in range(draw(st.integers(3, 5)))]
    tools = [{"name": name, "description": draw(descriptions)} for name in names]
    form = draw(st.sampled_from(["NFC", "NFC", "NFD", "NFD", *FORMS]))
    written = [quoted(unicodedata.normalize(form, name)) for name in names]
    text = json.dumps(tools, ensure_ascii=draw(st.booleans()))
    files = {"tools.json": encode(text, "utf-8"), "profiling.csv": draw(table(written))}
    return Case(["--config", "good.yaml"], files)
