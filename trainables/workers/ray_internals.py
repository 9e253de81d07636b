"""Names of Ray Train that are not public, each with the reason why nothing public does.

No other module here imports such a name; tests/trainables/workers/test_ray_internals.py tells
which of them an installed Ray lacks. Only the process that starts a fleet loads this module.
"""

from __future__ import annotations

from typing import Any

from ray.data._internal.cluster_autoscaler.default_autoscaling_coordinator import (
    get_or_create_autoscaling_coordinator,
)
from ray.train.v2._internal.callbacks import DatasetsCallback
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
from ray.train.v2._internal.state.state_actor import get_or_create_state_actor
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer


class FleetTrainer(DataParallelTrainer):
    """A Ray Train run of workers that need nothing of each other.

    The public trainers open a process group, and nothing that one host computes depends on another.
    Nor do hosts read Ray datasets, and their placement group ends with the controller that made it:
    the actors that Ray Train starts for these are left out, because the hosts would wait for them.
    """

    def _create_default_callbacks(self) -> list[Any]:
        unused = (DatasetsCallback, PlacementGroupCleanerCallback)
        return [c for c in super()._create_default_callbacks() if not isinstance(c, unused)]


def start_actors_of_train() -> None:
    """The two that the controller would start one after the other, and wait for each."""
    get_or_create_state_actor()
    get_or_create_autoscaling_coordinator()
