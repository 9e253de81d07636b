"""Target texts: sentences that state a row of the table, and the way back from a sentence."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from trainables.models.features import RESOURCES

TEMPLATES = (
    "{tool} on {input_size} input: {cpu_core} cores, {cpu_mem_gb} GB memory, {gpu_sm}% GPU, "
    "{gpu_mem_gb} GB GPU memory, {latency_ms} ms.",
    "Running {tool} on {input_size} input with {cpu_core} cores, {cpu_mem_gb} GB memory, "
    "{gpu_sm}% GPU and {gpu_mem_gb} GB GPU memory takes {latency_ms} ms.",
    "{tool} takes {latency_ms} ms on {input_size} input given {cpu_core} cores, {cpu_mem_gb} GB "
    "memory, {gpu_sm}% GPU and {gpu_mem_gb} GB GPU memory.",
    "With {cpu_core} cores, {cpu_mem_gb} GB memory, {gpu_sm}% GPU and {gpu_mem_gb} GB GPU memory, "
    "{tool} needs {latency_ms} ms on {input_size} input.",
)


def format_resource(name: str, value: Any) -> str:
    """A figure as the texts write it; latency, a measurement, to two significant digits."""
    if name == "input_size":
        return str(value)
    number = float(value)
    if name == "latency_ms" and number != 0:
        number = float(f"{number:.1e}")
    return f"{number:.12g}" if abs(number) < 1e12 else f"{number:.3e}"


def format_resources(figures: Mapping[str, Any]) -> dict[str, str]:
    return {name: format_resource(name, figures[name]) for name in RESOURCES}


def describe(tool: str, figures: Mapping[str, Any], template: int) -> str:
    """The sentence of one row in one of the templates."""
    return TEMPLATES[template].format(tool=tool, **format_resources(figures))


def _pattern(template: str) -> re.Pattern[str]:
    escaped = re.escape(template)
    for name in ("tool", *RESOURCES):
        escaped = escaped.replace(r"\{" + name + r"\}", rf"(?P<{name}>.+?)")
    return re.compile(escaped)


_PATTERNS = tuple(_pattern(template) for template in TEMPLATES)


def parse(text: str) -> dict[str, str] | None:
    """The tool and the six figures that a sentence states, as text; None if it is no template's."""
    for pattern in _PATTERNS:
        if match := pattern.fullmatch(text.strip()):
            return match.groupdict()
    return None
