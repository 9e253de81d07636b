"""An Optuna study in a journal file, worked on by one plain process per core; no Ray.

python -m benchmarks.alternatives.optuna_processes --workload DIRECTORY --trials 64

Each process loads LLM and inputs once and trains on one thread. The clock runs from just before
the study is made and the processes are started until the last of them has ended.
"""

from __future__ import annotations

import multiprocessing
import os
import tempfile
import time
from pathlib import Path

import optuna
import torch
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.study import MaxTrialsCallback
from optuna.trial import TrialState

from benchmarks.workload import Workload, alternative_parser, epochs, print_result
from search_spaces.ranges import draw
from trainables.llm.frozen import load_llm
from trainables.training.checkpoint import save_checkpoint
from tuning.config.space import with_params

STUDY = "sweep"


def work(directory: Path, out: Path, trials: int) -> None:
    """What one process does: take the next trial of the study until there is none left."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    torch.set_num_threads(1)
    workload = Workload.open(directory)
    llm = load_llm(workload.config)

    def objective(trial: optuna.Trial) -> float:
        config = with_params(workload.config, draw(workload.space, trial), "trial")
        for run, history in epochs(config, workload.inputs, llm):
            save_checkpoint(out / f"trial_{trial.number:04d}", run, history)
            trial.report(history[-1]["val_loss"], run.epoch)
        return float(history[-1]["val_loss"])

    study = optuna.load_study(study_name=STUDY, storage=_storage(out))
    # Those that another process is still at count, too, so that none is begun beyond the last.
    taken = (TrialState.COMPLETE, TrialState.RUNNING)
    study.optimize(objective, callbacks=[MaxTrialsCallback(trials, states=taken)])


def _storage(out: Path) -> JournalStorage:
    return JournalStorage(JournalFileBackend(str(out / "study.journal")))


def sweep(workload: Workload, trials: int, out: Path) -> None:
    params = workload.trials(trials)
    arguments = (workload.directory, out, trials)
    spawn = multiprocessing.get_context("spawn")
    start = time.perf_counter()
    study = optuna.create_study(study_name=STUDY, storage=_storage(out))
    for one in params:  # in place of a sampler: every alternative trains these
        study.enqueue_trial(one)
    cores = min(len(os.sched_getaffinity(0)), trials)
    processes = [spawn.Process(target=work, args=arguments) for _ in range(cores)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    seconds = time.perf_counter() - start
    ended = study.get_trials(deepcopy=False)
    assert [trial.params for trial in ended] == params
    print_result(seconds, {t.number: t.value for t in ended if t.value is not None})


def main() -> None:
    options = alternative_parser(__doc__).parse_args()
    workload = Workload.open(options.workload)
    with tempfile.TemporaryDirectory(dir=options.workload.absolute()) as out:
        sweep(workload, options.trials, Path(out))


if __name__ == "__main__":
    main()
