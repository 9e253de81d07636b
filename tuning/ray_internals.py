"""Names of Ray that are not public, each with the reason why nothing public does.

No other module here imports such a name or touches such an attribute;
tests/tuning/test_ray_internals.py tells which of them an installed Ray lacks. The processes of the
mailbox and the switchboard must not load this module: it loads all of Ray Tune.
"""

from __future__ import annotations

import importlib
import inspect
import logging
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray._common.constants import HEAD_NODE_RESOURCE_NAME
from ray._common.utils import get_default_ray_temp_dir, get_ray_address_file
from ray._private.authentication.authentication_token_setup import AuthenticationTokenLoader
from ray._private.services import (
    canonicalize_bootstrap_address,
    find_gcs_addresses,
    find_node_ids,
)
from ray._raylet import NodeID
from ray.actor import ActorHandle
from ray.exceptions import RayActorError
from ray.train._internal.checkpoint_manager import _TrainingResult
from ray.train.v2._internal.execution.callback import ControllerCallback, WorkerGroupCallback
from ray.tune.execution.tune_controller import TuneController
from ray.tune.experiment import Trial

# A Tune trial must ask for some resource. What only waits and forwards asks for a bit of this one,
# which is on the head node alone, and which no training needs.
HEAD_NODE: str = HEAD_NODE_RESOURCE_NAME
RUN_MODULE = "ray.tune.tune"  # of `tune.run`, which makes the controller
CONTROLLER = "TuneController"
FAILURE_PARAMETERS = ("self", "trial", "exception")


@dataclass(frozen=True)
class Answer:
    """What a cluster's head answers: gRPC's status, ``OK`` or another, and its words for it."""

    status: str
    details: str = ""
    nodes_here: int = 0  # of the cluster's nodes, those on this machine


def ray_directory() -> Path:
    """Where Ray keeps the sessions of this machine, by RAY_TMPDIR, TMPDIR or its default."""
    return Path(get_default_ray_temp_dir())


def address_file() -> Path:
    """Where `ray start` has written the cluster of this machine, which ``ray.init`` then joins.

    ``ray.init(address="auto")`` tells of it by an error, but joins any Ray of the machine, also one
    that another sweep has started for itself.
    """
    return Path(get_ray_address_file(None))


def resolve_address(address: str) -> str:
    """HOST:PORT where ``ray.init`` looks for what RAY_ADDRESS says: not always the host given.

    Raises ValueError for another form, ConnectionError where `auto` finds none.
    """
    find_gcs_addresses.cache_clear()  # as ``ray.init`` does
    with _silent(logging.getLogger(canonicalize_bootstrap_address.__module__)):
        return str(canonicalize_bootstrap_address(address))


@contextmanager
def _silent(logger: logging.Logger) -> Iterator[None]:
    """What it has to say ``ray.init`` says again."""
    before, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = before


def token_is_found() -> bool:
    """Whether Ray finds a token; AuthenticationError says what is wrong with its place.

    In public only ``ray.init`` tells it, too late.
    """
    loader = AuthenticationTokenLoader.instance()
    loader.reset_cache()  # else Ray would not look again after it has been given another place
    try:
        return bool(loader.has_token(ignore_auth_mode=True))
    finally:
        loader.reset_cache()


def ask_cluster(address: str, send_token: bool, seconds: float) -> Answer:
    """Ask a cluster's head whether it is there, and lets us in, within ``seconds``.

    ``ray.init`` waits for minutes for a head that is gone, and for one that wants a token.
    """
    import grpc
    from ray._private.authentication.authentication_utils import is_token_auth_enabled
    from ray._private.grpc_utils import init_grpc_channel
    from ray.core.generated import gcs_service_pb2 as messages
    from ray.core.generated.gcs_pb2 import GcsNodeInfo
    from ray.core.generated.gcs_service_pb2_grpc import NodeInfoGcsServiceStub

    loader = AuthenticationTokenLoader.instance()
    enabled = is_token_auth_enabled()  # then Ray's channel sends the token, and demands that one is
    token = {}
    if send_token and not enabled and loader.has_token(ignore_auth_mode=True):  # which loads it
        token = loader.get_token_for_http_header()
    plain = enabled and not token_is_found()
    make_channel = grpc.insecure_channel if plain else init_grpc_channel
    with closing(make_channel(address)) as channel:
        head = NodeInfoGcsServiceStub(channel)
        options = {"timeout": seconds, "metadata": tuple(token.items())}
        try:
            head.CheckAlive(messages.CheckAliveRequest(), **options)
            request = messages.GetAllNodeInfoRequest(state_filter=GcsNodeInfo.ALIVE)
            for node in find_node_ids():
                selector = request.node_selectors.add()
                selector.node_id = NodeID.from_hex(node).binary()
            if not request.node_selectors:
                return Answer("OK")
            reply = head.GetAllNodeInfo(request, **options)
        except grpc.RpcError as error:
            return Answer(error.code().name, error.details() or "")
    return Answer("OK", nodes_here=len(reply.node_info_list))


def trial_directory(trainable: tune.Trainable) -> Path:
    """Where Tune keeps a trial's checkpoints; a class trainable is not told in public."""
    return Path(trainable._storage.trial_fs_path)


def last_result(trainable: tune.Trainable) -> dict[str, Any]:
    """What its last ``train`` returned, filled up by Tune; ``save`` is not given it."""
    found: dict[str, Any] = trainable._last_result
    return found


def saved_in_place(directory: Path, figures: dict[str, Any]) -> _TrainingResult:
    """What ``save`` returns of a checkpoint that lies where Tune keeps them.

    By the public ``save_checkpoint`` Tune would copy it there from another directory.
    """
    return _TrainingResult(tune.Checkpoint.from_directory(directory), figures)


def keep_no_running_means(trial: Trial) -> None:
    """Tune computes some of every figure at every report.

    Nothing reads them, and no setting ends it.
    """
    trial.run_metadata._n_steps = []


def name_directory(trial: Trial) -> None:
    """Every trial's directory has its name, and no other.

    Ray adds to it where a sweep that began on the same cluster in the same second has one too, also
    to the name that ``trial_dirname_creator`` gives.
    """
    trial.relative_logdir = trial.storage.trial_dir_name = str(trial)


class ControllerStarted(ControllerCallback):
    """Gives ``tell`` the Train controller's own handle, in the controller's process.

    A public ``UserCallback`` is called at reports and failures only.
    """

    def __init__(self, tell: Callable[[ActorHandle], object]) -> None:
        self._tell = tell

    def after_controller_start(self, train_run_context: Any) -> None:
        self._tell(ray.get_runtime_context().current_actor)


class WorkersStart(WorkerGroupCallback):
    """Gives ``tell`` the number of workers before a group of them starts, the first or another.

    A public ``UserCallback`` is called at reports and failures only.
    """

    def __init__(self, tell: Callable[[int], object]) -> None:
        self._tell = tell

    def before_worker_group_start(self, worker_group_context: Any) -> None:
        self._tell(worker_group_context.num_workers)


def abort_controller(controller: ActorHandle, seconds: float) -> None:
    """End a Ray Train run in order. In public that is done by Ctrl-C, in the main thread only."""
    ray.get(controller.abort.remote(), timeout=seconds)


class RetryingController(TuneController):
    """Retries a trial whose process dies while it is handed over to that trial.

    Ray hears of such a death twice: of the process, upon which it puts the trial back into the
    queue, and of the call that hands it over, upon which it gives up the trial that it finds there.
    """

    def _trial_task_failure(self, trial: Trial, exception: Exception) -> None:
        resetting = isinstance(exception, RayActorError) and trial in self._resetting_trials
        if resetting and trial.status != Trial.RUNNING:
            self._resetting_trials.remove(trial)
            return
        super()._trial_task_failure(trial, exception)


@contextmanager
def retrying_controller() -> Iterator[None]:
    """``tune.run`` makes a RetryingController inside the block.

    It has no argument for its controller and makes the one that its module has under this name, so
    the name is given another class for the time of the block. Raises RuntimeError where Ray does
    not do what is known here: then nothing is changed.
    """
    module = importlib.import_module(RUN_MODULE)
    if problem := _unknown(getattr(module, CONTROLLER, None)):
        raise RuntimeError(
            f"Ray {ray.__version__} cannot be mended as Ray 2.60 can: {problem}; install that one"
        )
    setattr(module, CONTROLLER, RetryingController)
    try:
        yield
    finally:
        setattr(module, CONTROLLER, TuneController)


def _unknown(found: Any) -> str:
    """What is otherwise than in the class that RetryingController is made for; empty: nothing."""
    if found is not TuneController:
        return f"`{RUN_MODULE}.{CONTROLLER}` is {found!r}"
    if tuple(inspect.signature(found._trial_task_failure).parameters) != FAILURE_PARAMETERS:
        return f"`{CONTROLLER}._trial_task_failure` has other parameters"
    if "_resetting_trials" not in found.__init__.__code__.co_names:
        return f"`{CONTROLLER}` has no `_resetting_trials`"
    return ""
