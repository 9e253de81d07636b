"""The LLM and the texts tried out in a process of their own, for those that load no torch.

``python -m trainables.inputs.probing`` is that process: a request as JSON on its standard input,
an answer as JSON on its standard output.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from trainables.config import PretrainConfig
from trainables.data.registry import Tool, load_registry
from trainables.errors import LLMError, UserError
from trainables.inputs.cache import prepared_path
from trainables.inputs.checked_data import CheckedData, read_data
from trainables.llm.location import local_directory
from trainables.llm.verdict import Verdict, known_verdict

WHOLE_GIB = 4.0  # larger ones do not load within the minute that a check may take
SENTENCE_BYTES = 250  # of the longest template with six long figures
WAIT_SECONDS = 0.05
POLITENESS = 10  # what it is started beside goes first
_log = logging.getLogger(__name__)


def must_be_probed(config: PretrainConfig, tools: Sequence[Tool]) -> bool:
    """Whether it is still unknown that the LLM can be used, and that it can read the texts.

    Of an LLM that is not on this machine nothing can be known before its download.
    """
    if local_directory(config.model) is None:
        return False
    verdict = known_verdict(config.model)
    if verdict is None:
        return True
    prompts = [tool.prompt for tool in tools]
    if verdict.any_text and all(_surely_fits(prompt, verdict) for prompt in prompts):
        return False
    paths = (prepared_path(config, on_gpu) for on_gpu in (False, True))
    return not any(path and path.is_file() for path in paths)


def _surely_fits(prompt: str, verdict: Verdict) -> bool:
    """A byte is a token at most, and a target text a sentence around its tool's name."""
    return len(prompt.encode()) + SENTENCE_BYTES <= verdict.max_tokens


def weights_gib(directory: Path) -> float:
    files = (p for p in directory.iterdir() if p.suffix in (".safetensors", ".bin"))
    return sum(path.stat().st_size for path in files) / 2**30


class Probing:
    """A probe that goes on beside this process; ``whole``: of the LLM itself, not of a copy."""

    def __init__(self, config: PretrainConfig, *, whole: bool) -> None:
        self._name = config.model.llm_model
        self._whole = whole
        self._told = False
        self._files = ExitStack()
        request, self._output, self._chatter = (
            self._files.enter_context(tempfile.TemporaryFile())  # noqa: SIM115 - the stack closes it
            for _ in range(3)
        )
        request.write(json.dumps({"config": config.model_dump(), "whole": whole}).encode())
        request.seek(0)
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        if not whole:  # it goes on beside the hosts, whose GPUs and cores these are
            environment |= {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "trainables.inputs.probing"],
            stdin=request,
            stdout=self._output,
            stderr=self._chatter,
            env=environment,
            start_new_session=True,  # Ctrl-C is this process's to tell it
        )

    def check(self) -> None:
        """Raises LLMError once if it has ended and found something; returns at once."""
        if self._told or self._process.poll() is None:
            return
        self._told = True
        if error := self._found():
            raise LLMError(error)

    def wait(self, interrupt: Callable[[], None] = lambda: None) -> None:
        """As ``check``, when it has ended; ``interrupt`` is called meanwhile, and may raise."""
        while self._process.poll() is None:
            interrupt()
            time.sleep(WAIT_SECONDS)
        self.check()

    def close(self) -> None:
        """End it, if it has not ended."""
        self._process.kill()
        self._process.wait()
        self._files.close()

    def _found(self) -> str | None:
        self._output.seek(0)
        try:
            return json.loads(self._output.read())["error"]
        except (ValueError, TypeError, KeyError):  # it has not come to its end
            self._chatter.seek(0)
            said = self._chatter.read().decode(errors="replace").strip().splitlines()
        why = said[-1] if said else "it said nothing; is there enough memory?"
        text = f"its probe ended with status {self._process.returncode}: {why}"
        if self._whole:
            return f"`model.llm_model` is `{self._name}`: {text}"
        _log.info("%s", text)  # the first host will tell
        return None


@contextmanager
def probed_beside(config: PretrainConfig) -> Iterator[Probing | None]:
    """A probe of a copy of the LLM beside what is done in the block; None if none is needed."""
    # The registry alone: a large table takes seconds to read, and has been checked by now.
    if not must_be_probed(config, load_registry(Path(config.data.tool_registry))):
        yield None
        return
    probe = Probing(config, whole=False)
    try:
        yield probe
    finally:
        probe.close()


def check_llm(config: PretrainConfig, data: CheckedData) -> str:
    """Probe the LLM and the texts now, unless that was done before; in words, what was done.

    Raises LLMError or DataError for what cannot be used.
    """
    directory = local_directory(config.model)
    if directory is None:
        return "not probed: it is not on this machine yet"
    if not must_be_probed(config, data.tools):
        return "an encoder can be trained against it, as a probe has found out before"
    size = weights_gib(directory)
    probe = Probing(config, whole=size <= WHOLE_GIB)
    try:
        probe.wait()
    finally:
        probe.close()
    if size > WHOLE_GIB:
        return (
            f"an encoder can be trained against a copy of it with two layers; its {size:.0f} GiB "
            "of weights are checked by the first host"
        )
    return "an encoder can be trained against it"


def try_out(config: PretrainConfig, whole: bool) -> None:
    """What the process does; raises LLMError or DataError for what cannot be used."""
    from trainables.inputs.preparing import check_texts
    from trainables.llm.probe import load_probed_llm, probe
    from trainables.llm.small_copy import small_copy

    data = read_data(config)
    if whole:
        llm = load_probed_llm(config)
    else:
        directory = local_directory(config.model)
        copy = small_copy(config.model, directory) if directory else None
        if copy is None:
            return
        llm = copy
        probe(llm, config.model)
    check_texts(llm, data, config.model)


def main() -> None:
    request = json.load(sys.stdin)
    whole = bool(request["whole"])
    if not whole:
        os.nice(POLITENESS)
    answer: dict[str, str | None] = {"error": None}
    try:
        try_out(PretrainConfig.model_validate(request["config"]), whole)
    except UserError as error:
        answer["error"] = str(error)
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
