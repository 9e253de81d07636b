"""Ray Train inside Ray Tune as the Ray documentation has it, one Train run per trial.

python -m benchmarks.alternatives.ray_recipe --workload DIRECTORY --trials 16 [--repaired]

Without ``--repaired`` every setting is Ray's default. With it, what the defaults cost is repaired
as far as settings go. The clock runs from just before ``Tuner.fit`` until it returns: Ray is up
and the shared inputs are in the object store before, everything else happens inside.
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
import ray.train
import ray.train.torch
import ray.tune
from ray.tune.integration.ray_train import TuneReportCallback

from benchmarks.workload import Workload, alternative_parser, fit_and_print
from trainables.config import PretrainConfig
from trainables.workers.object_store import put_inputs

CPUS_PER_WORKER = 1
# A driver only waits. With the default of one CPU each, drivers would take every core from the
# workers that they wait for; the documentation gives them a resource of their own.
DRIVER_RESOURCE = "TRAIN_DRIVER_RESOURCE"
REPAIRS = {
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.05",  # by default a report waits up to two seconds
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",  # a process per run
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
}


@dataclass(frozen=True)
class Shared:
    """What all trials of the sweep have in common; ``trials`` are theirs by number."""

    trials: list[PretrainConfig]
    inputs: ray.ObjectRef
    storage: str
    repaired: bool


def train_fn_per_worker(train_loop_config: dict[str, Any]) -> None:
    # Imported where it is needed: drivers and controllers unpickle this function, too.
    from benchmarks.workload import epochs
    from trainables.llm.frozen import load_llm
    from trainables.training.checkpoint import write_checkpoint
    from trainables.workers.object_store import get_inputs

    config = train_loop_config["config"]
    inputs = get_inputs(train_loop_config["inputs"])
    for run, history in epochs(config, inputs, load_llm(config)):
        with tempfile.TemporaryDirectory() as directory:
            write_checkpoint(Path(directory), run, history)
            checkpoint = ray.train.Checkpoint.from_directory(directory)
            ray.train.report(history[-1], checkpoint=checkpoint)


def train_driver_fn(config: dict[str, Any], shared: Shared) -> None:
    limits = ray.train.FailureConfig(max_failures=1, controller_failure_limit=3)
    trainer = ray.train.torch.TorchTrainer(
        train_fn_per_worker,
        train_loop_config={"config": shared.trials[config["number"]], "inputs": shared.inputs},
        scaling_config=ray.train.ScalingConfig(
            num_workers=1, resources_per_worker={"CPU": CPUS_PER_WORKER}
        ),
        run_config=ray.train.RunConfig(
            name=f"train-trial_id={ray.tune.get_context().get_trial_id()}",
            storage_path=shared.storage,
            callbacks=[TuneReportCallback()],
            failure_config=limits if shared.repaired else None,
        ),
    )
    trainer.fit()


def sweep(workload: Workload, trials: int, repaired: bool, reuse: bool, out: str) -> None:
    if repaired:
        os.environ.update(REPAIRS)
    ray.init(address="local", resources={DRIVER_RESOURCE: 1.0})
    shared = Shared(workload.configs(trials), put_inputs(workload.inputs), out, repaired)
    driver = ray.tune.with_parameters(train_driver_fn, shared=shared)
    tuner = ray.tune.Tuner(
        ray.tune.with_resources(driver, {DRIVER_RESOURCE: 0.01}),
        param_space={"number": ray.tune.grid_search(list(range(trials)))},
        tune_config=ray.tune.TuneConfig(
            metric="val_loss",
            mode="min",
            max_concurrent_trials=int(ray.cluster_resources()["CPU"]) // CPUS_PER_WORKER,
            reuse_actors=reuse,
        ),
        run_config=ray.tune.RunConfig(
            name="sweep",
            storage_path=out,
            failure_config=ray.tune.FailureConfig(max_failures=1) if repaired else None,
            verbose=0 if repaired else None,
        ),
    )
    fit_and_print(tuner)
    ray.shutdown()


def main() -> None:
    parser = alternative_parser(__doc__)
    parser.add_argument("--repaired", action="store_true")
    parser.add_argument("--reuse-actors", action="store_true", help="keep the drivers' processes")
    options = parser.parse_args()
    workload = Workload.open(options.workload)
    with tempfile.TemporaryDirectory(dir=options.workload.absolute()) as out:
        sweep(workload, options.trials, options.repaired, options.reuse_actors, out)


if __name__ == "__main__":
    main()
