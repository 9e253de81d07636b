"""Which of W&B's variables belong to one run: a sweep has many, and hands none of them on.

Whoever starts a sweep from a run of their own, from W&B's agent or from a job that sets
``WANDB_RUN_ID`` has them in the environment. All runs would be that one, which W&B refuses.
Where to send what, and how, stays as it is set: project, entity, mode, directory, key, address.
"""

from __future__ import annotations

from collections.abc import Mapping

PREFIX = "WANDB_"
# By wandb's own names of its settings; a variable may have any spelling of `spellings`.
OF_ONE_RUN = frozenset(
    (
        *("run_id", "run_name", "run_group", "run_job_type", "run_storage_id", "run_dir"),
        *("resume", "resume_from", "resumed", "fork_from", "reinit", "inited"),
        *("sweep_id", "sweep_param_path", "config_paths"),  # of W&B's agent
        *("job_name", "job_source", "x_runqueue_item_id", "x_cli_only_mode"),
        *("service", "x_service_transport"),  # another process's background service
        *("x_files_dir", "x_sync", "x_sync_dir_suffix", "x_skip_transaction_log"),
        *("x_primary", "x_label", "x_update_finish_state", "x_start_time"),
    )
)
LAUNCH = "launch"  # whatever begins with it belongs to one job of W&B's
# Two spellings that follow no rule.
SHORT = {"name": "run_name", "job_type": "run_job_type", "service_transport": "x_service_transport"}


def environment_of_runs(environment: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    """The environment without what belongs to one run, and the names of what was put aside."""
    aside = sorted(name for name in environment if _is_of_one_run(name))
    return {k: v for k, v in environment.items() if k not in aside}, aside


def _is_of_one_run(variable: str) -> bool:
    if not variable.startswith(PREFIX):
        return False
    name = variable.removeprefix(PREFIX).lower()
    name = f"x{name}" if name.startswith("_") else SHORT.get(name, name)
    return name in OF_ONE_RUN or name.startswith(LAUNCH)
