"""Everything about a sweep that can be wrong before it starts, and what it will cost."""

from __future__ import annotations

from collections.abc import Iterator

from search_spaces.ranges import extremes
from search_spaces.schema import SearchSpace
from trainables.config import PretrainConfig
from trainables.errors import ConfigError, UserError
from trainables.files import check_writable
from trainables.inputs.checked_data import CheckedData, read_data
from trainables.inputs.split import check_sizes
from trainables.llm.location import (
    check_available,
    check_heads,
    hidden_size,
    known_hidden_size,
    llm_hidden_size,
    local_directory,
)
from tuning.config.space import check_points, check_space
from tuning.config.sweep import ASHA, ResolvedSweep, SweepConfig
from tuning.terminal import run_tune_on

BATCH_SIZE = "training.batch_size"


def check_sweep(sweep: ResolvedSweep) -> CheckedData:
    """Read the data, check batch sizes, name and storage; nothing is created."""
    config = sweep.config
    check_available(config.train.model)
    data = read_data(config.train)
    for size in _batch_sizes(config.search_space):
        check_sizes(data.train_rows, data.val_rows, size)
    if config.metric == "field_accuracy" and not config.train.training.field_accuracy_samples:
        raise ConfigError(
            "`metric` is field_accuracy, but `training.field_accuracy_samples` is 0; raise it"
        )
    check_writable(sweep.directory.parent, "--storage")
    return data


def settle_llm(config: SweepConfig) -> SweepConfig:
    """``config`` with what depends on the LLM's D filled in and checked.

    Where D is not known on this machine, the hub is asked for the LLM's ``config.json``, and for
    nothing else. Raises LLMError where it cannot be had, ConfigError for heads that do not fit.
    """
    if known_hidden_size(config.train.model) is not None:
        return config  # done when the file was read
    check_available(config.train.model)
    llm_hidden_size(config.train.model)  # from now on it lies in the cache
    space = check_space(config.search_space, config.train, "search_space")
    first = check_points(config.warm_start, space, config.train, "sweep")
    return config.model_copy(update={"search_space": space, "warm_start": first})


def settle_rungs(config: SweepConfig) -> SweepConfig:
    """``config`` with the first rung that its table asks for, which is read if nobody has set one.

    So it is where a sweep that goes on changes its scheduler.
    """
    if not isinstance(config.scheduler, ASHA) or config.scheduler.grace_epochs != "auto":
        return config
    return config.with_rungs(len(read_data(config.train).train_rows))


def check_name_is_free(sweep: ResolvedSweep) -> None:
    """A sweep never writes into another one's directory."""
    if sweep.directory.exists():
        raise UserError(
            f"the name `{sweep.name}` is already used: {sweep.directory}; choose another --name, "
            f"or go on with it: {run_tune_on(sweep.directory, 'resume')}"
        )


def _batch_sizes(space: SearchSpace) -> Iterator[int]:
    spec = space.root.get(BATCH_SIZE)
    if spec is not None:
        yield from (int(value) for value in extremes(spec))


def check_train(config: PretrainConfig) -> CheckedData:
    """The checks of ``train``: the data, and the heads where the LLM is at hand."""
    check_available(config.model)
    data = read_data(config)
    directory = local_directory(config.model)
    if directory is not None:
        check_heads(
            config.model.num_attention_heads,
            hidden_size(directory),
            "`model.num_attention_heads`",
        )
    return data
