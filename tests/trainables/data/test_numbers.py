"""Texts that are no numbers: what each is taken for."""

from __future__ import annotations

import pytest

from trainables.data.numbers import trouble

MISSING = "a missing value; measure it, or remove the row"
CASES = [
    ("gpu_sm", "50%", "a percent sign; write 50"),
    ("gpu_sm", "12,5 %", "a percent sign; write 12.5"),
    ("gpu_sm", "50％", "a percent sign; write 50"),
    ("gpu_sm", "50 percent", "a unit: gpu_sm is in percent; write 50"),
    ("cpu_mem_gb", "4 GB", "a unit: cpu_mem_gb is in GB; write 4"),
    ("gpu_mem_gb", "7,5gb", "a unit: gpu_mem_gb is in GB; write 7.5"),
    ("gpu_mem_gb", "4096 MiB", "a unit: gpu_mem_gb is in GB; convert it, and write no unit"),
    ("latency_ms", "120ms", "a unit: latency_ms is in milliseconds; write 120"),
    ("latency_ms", "1.2 s", "a unit: latency_ms is in milliseconds; convert it, and write no unit"),
    ("latency_ms", "3 µs", "a unit: latency_ms is in milliseconds; convert it, and write no unit"),
    ("cpu_core", "2 cores", "a unit: cpu_core is in cores; write 2"),
    ("latency_ms", "1,5", "a decimal comma? write 1.5"),
    ("latency_ms", ",5", "a decimal comma? write .5"),
    ("latency_ms", "1,5e3", "a decimal comma? write 1.5e3"),
    ("latency_ms", "-12,25", "a decimal comma? write -12.25"),
    ("latency_ms", "1,234", "a decimal comma, or separated thousands? write 1.234 or 1234"),
    ("latency_ms", "1,234,567", "separated thousands; write 1234567"),
    ("latency_ms", "1.234.567", "separated thousands; write 1234567"),
    ("latency_ms", "1,234.5", "separated thousands; write 1234.5"),
    ("latency_ms", "1.234,5", "separated thousands; write 1234.5"),
    ("latency_ms", "1 234,5", "separated thousands; write 1234.5"),
    ("latency_ms", "1\u00a0234", "separated thousands; write 1234"),
    ("latency_ms", "1\u202f234", "separated thousands; write 1234"),
    ("latency_ms", "1'234.5", "separated thousands; write 1234.5"),
    ("latency_ms", "12,34,567.5", "separated thousands? write digits and a point"),
    *(("latency_ms", text, MISSING) for text in ("", "NA", "n/a", "#N/A", "NaN", "null", "-", "?")),
    *(("latency_ms", text, MISSING) for text in ("#DIV/0!", "#REF!", "None", "—")),
    ("latency_ms", '"4"', "quotes; leave them out and the blank before them"),
    ("latency_ms", "'4", "quotes; leave them out"),
    ("latency_ms", "“4”", "quotes; leave them out"),
    ("latency_ms", "=B2*2", "a formula; export its value"),
    ("latency_ms", "2-Jan", "a date, a range, a fraction? write one number"),
    ("latency_ms", "4-8", "a date, a range, a fraction? write one number"),
    ("latency_ms", "1/2", "a date, a range, a fraction? write one number"),
    ("latency_ms", "~5", "more than a number; leave out `~`"),
    ("latency_ms", "<5", "more than a number; leave out `<`"),
    ("latency_ms", "5*", "more than a number; leave out `*`"),
    ("latency_ms", "\u22125", "it has U+2212 (MINUS SIGN); write digits"),
    ("latency_ms", "5\u200b", "it has U+200B (ZERO WIDTH SPACE); write digits"),
    ("latency_ms", "5 ± 1", "it has U+00B1 (PLUS-MINUS SIGN); write digits"),
]


@pytest.mark.parametrize(("column", "text", "said"), CASES)
def test_what_stands_in_the_way_is_named(column: str, text: str, said: str) -> None:
    assert str(trouble(column, text)) == f": {said}"


@pytest.mark.parametrize("text", ["two", "0x10", "TRUE", "small"])
def test_of_what_cannot_be_guessed_nothing_is_said(text: str) -> None:
    assert str(trouble("cpu_core", text)) == ""
