"""The private names of Ray that the two modules `ray_internals` use, and whether a Ray has them.

They are looked up by text, so that a test can say by name what an installed Ray lacks.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
from dataclasses import dataclass
from typing import Any

import ray

STORAGE = "ray.train._internal.storage"
CALLBACK = "ray.train.v2._internal.execution.callback"
SETUP = "ray._private.authentication.authentication_token_setup"
TRAINER = "ray.train.v2.api.data_parallel_trainer"


@dataclass(frozen=True)
class PrivateName:
    """A module's name, or an attribute of a class in it, with the parameters that we know."""

    module: str
    path: str  # `Class` or `Class.attribute`
    parameters: tuple[str, ...] | None = None

    @property
    def name(self) -> str:
        return self.path.rpartition(".")[2]

    def __str__(self) -> str:
        return f"{self.module}.{self.path}"


TUNING = (
    PrivateName("ray._common.constants", "HEAD_NODE_RESOURCE_NAME"),
    PrivateName("ray._common.utils", "get_default_ray_temp_dir", ()),
    PrivateName("ray._common.utils", "get_ray_address_file", ("temp_dir",)),
    PrivateName("ray._private.services", "canonicalize_bootstrap_address", ("addr", "temp_dir")),
    PrivateName("ray._private.services", "find_gcs_addresses", ()),
    PrivateName("ray._private.services", "find_node_ids", ()),
    PrivateName("ray._private.grpc_utils", "init_grpc_channel"),
    PrivateName("ray._private.authentication.authentication_utils", "is_token_auth_enabled", ()),
    PrivateName(SETUP, "AuthenticationTokenLoader"),
    PrivateName(SETUP, "AuthenticationTokenLoader.has_token"),
    PrivateName(SETUP, "AuthenticationTokenLoader.reset_cache"),
    PrivateName(SETUP, "AuthenticationTokenLoader.get_token_for_http_header"),
    PrivateName("ray._raylet", "NodeID"),
    PrivateName("ray.core.generated.gcs_service_pb2_grpc", "NodeInfoGcsServiceStub"),
    PrivateName("ray.train._internal.checkpoint_manager", "_TrainingResult"),
    PrivateName(CALLBACK, "ControllerCallback"),
    PrivateName(
        CALLBACK, "ControllerCallback.after_controller_start", ("self", "train_run_context")
    ),
    PrivateName(CALLBACK, "WorkerGroupCallback"),
    PrivateName(
        CALLBACK, "WorkerGroupCallback.before_worker_group_start", ("self", "worker_group_context")
    ),
    PrivateName("ray.train.v2._internal.execution.worker_group", "WorkerGroupContext.num_workers"),
    PrivateName("ray.train.v2._internal.execution.controller", "TrainController.abort", ("self",)),
    PrivateName("ray.tune.tune", "TuneController"),  # where `tune.run` finds it
    PrivateName("ray.tune.execution.tune_controller", "TuneController"),
    PrivateName(
        "ray.tune.execution.tune_controller",
        "TuneController._trial_task_failure",
        ("self", "trial", "exception"),
    ),
    PrivateName("ray.tune.execution.tune_controller", "TuneController._resetting_trials"),
    PrivateName("ray.tune", "Trainable._storage"),
    PrivateName("ray.tune", "Trainable._last_result"),
    PrivateName(STORAGE, "StorageContext.trial_fs_path"),
    PrivateName(STORAGE, "StorageContext.trial_dir_name"),
    PrivateName("ray.tune.experiment", "Trial.relative_logdir"),
    PrivateName("ray.tune.experiment", "Trial.run_metadata"),
    PrivateName("ray.tune.trainable.metadata", "_TrainingRunMetadata._n_steps"),
)
WORKERS = (
    PrivateName(TRAINER, "DataParallelTrainer"),
    PrivateName(TRAINER, "DataParallelTrainer._create_default_callbacks", ("self",)),
    PrivateName("ray.train.v2._internal.callbacks", "DatasetsCallback"),
    PrivateName(
        "ray.train.v2._internal.callbacks.placement_group_callback", "PlacementGroupCleanerCallback"
    ),
    PrivateName("ray.train.v2._internal.state.state_actor", "get_or_create_state_actor", ()),
    PrivateName(
        "ray.data._internal.cluster_autoscaler.default_autoscaling_coordinator",
        "get_or_create_autoscaling_coordinator",
        (),
    ),
)


def problem(wanted: PrivateName, seen_in: str) -> str:
    """What the installed Ray does not have as it is known; empty: nothing."""
    lacks = f"Ray {ray.__version__} has no `{wanted}`; see {seen_in}"
    try:
        found: Any = importlib.import_module(wanted.module)
    except ImportError:
        return lacks
    for part in wanted.path.split("."):
        if part in _set_in_init(found):
            return ""
        if not hasattr(found, part):
            return lacks
        found = getattr(found, part)
    if wanted.parameters is None:
        return ""
    parameters = tuple(inspect.signature(found).parameters)
    if parameters == wanted.parameters:
        return ""
    return (
        f"Ray {ray.__version__} has `{wanted}` with the parameters {parameters}, not "
        f"{wanted.parameters}; see {seen_in}"
    )


def _set_in_init(found: Any) -> set[str]:
    """Attributes that only a class's instances have."""
    if not inspect.isclass(found):
        return set()
    fields = {f.name for f in dataclasses.fields(found)} if dataclasses.is_dataclass(found) else ()
    return {*getattr(getattr(found.__init__, "__code__", None), "co_names", ()), *fields}
