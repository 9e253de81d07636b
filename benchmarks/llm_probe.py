"""What the probe of the LLM adds to a start, in seconds.

    python -m benchmarks.llm_probe [--llm NAME] [--times 20]

`train` and every host make the probe's passes after they have loaded the LLM; `launch` looks for
the verdict. Without one, the passes and the tokenizer are tried once, and `launch` and `validate`
start a process for it.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from statistics import median

import torch

from trainables.config import DEFAULT_CONFIG, EMBEDDED, PretrainConfig, load_config
from trainables.inputs.checked_data import read_data
from trainables.inputs.probing import Probing, must_be_probed
from trainables.llm import location
from trainables.llm.frozen import load_llm
from trainables.llm.probe import check_passes, probe


def seconds(do: Callable[[], object], times: int) -> str:
    """The median, the fewest and the most."""
    taken = []
    for _ in range(times):
        start = time.perf_counter()
        do()
        taken.append(time.perf_counter() - start)
    return f"{median(taken):.3f} ({min(taken):.3f} to {max(taken):.3f})"


def in_a_process(config: PretrainConfig, whole: bool) -> str:
    def probe_there() -> None:
        probing = Probing(config, whole=whole)
        try:
            probing.wait()
        finally:
            probing.close()

    return seconds(probe_there, 3)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--llm", default=EMBEDDED)
    parser.add_argument("--times", type=int, default=20)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as cache:
        names = [f"model.llm_model={options.llm}", f"model.cache_dir={cache}"]
        config = load_config(DEFAULT_CONFIG, names)

        def look() -> None:
            location._digest.cache_clear()  # as in a new process
            must_be_probed(config, read_data(config))

        llm = load_llm(config)

        def passes() -> None:
            check_passes(llm, config.model)

        def first_time() -> None:
            probe(load_llm(config), config.model)

        rows = [
            ("train, each host: the passes, in a new process", seconds(passes, 1)),
            ("the same, once more", seconds(passes, options.times)),
            ("launch: to look for the verdict", seconds(look, options.times)),
            ("without a verdict: loaded, passes, tokenizer", seconds(first_time, options.times)),
            ("launch without a verdict: a copy, beside Ray", in_a_process(config, whole=False)),
            ("validate without a verdict: the LLM", in_a_process(config, whole=True)),
        ]
    for what, taken in rows:
        print(f"{what:<50}{taken}")


if __name__ == "__main__":
    main()
