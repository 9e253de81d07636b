"""A plain function trainable of Ray Tune, without Ray Train: a process per trial, one CPU each.

python -m benchmarks.alternatives.tune_function --workload DIRECTORY --trials 64 [--reuse-actors]

Every setting is Tune's default. The clock runs from just before ``Tuner.fit`` until it returns:
Ray is up and the shared inputs are in the object store before, everything else happens inside.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray import tune

from benchmarks.workload import (
    Workload,
    alternative_parser,
    epochs,
    fit_and_print,
)
from trainables.config import PretrainConfig
from trainables.llm.frozen import load_llm
from trainables.training.checkpoint import write_checkpoint
from trainables.workers.object_store import get_inputs, put_inputs


@dataclass(frozen=True)
class Shared:
    """What all trials of the sweep have in common; ``trials`` are theirs by number."""

    trials: list[PretrainConfig]
    inputs: ray.ObjectRef


def train_fn(config: dict[str, Any], shared: Shared) -> None:
    trial = shared.trials[config["number"]]
    for run, history in epochs(trial, get_inputs(shared.inputs), load_llm(trial)):
        with tempfile.TemporaryDirectory() as directory:
            write_checkpoint(Path(directory), run, history)
            tune.report(history[-1], checkpoint=tune.Checkpoint.from_directory(directory))


def sweep(workload: Workload, trials: int, reuse: bool, out: str) -> None:
    ray.init(address="local")
    shared = Shared(workload.configs(trials), put_inputs(workload.inputs))
    tuner = tune.Tuner(
        tune.with_parameters(train_fn, shared=shared),
        param_space={"number": tune.grid_search(list(range(trials)))},
        tune_config=tune.TuneConfig(metric="val_loss", mode="min", reuse_actors=reuse),
        run_config=tune.RunConfig(name="sweep", storage_path=out),
    )
    fit_and_print(tuner)
    ray.shutdown()


def main() -> None:
    parser = alternative_parser(__doc__)
    parser.add_argument("--reuse-actors", action="store_true", help="keep the trials' processes")
    options = parser.parse_args()
    workload = Workload.open(options.workload)
    with tempfile.TemporaryDirectory(dir=options.workload.absolute()) as out:
        sweep(workload, options.trials, options.reuse_actors, out)


if __name__ == "__main__":
    main()
