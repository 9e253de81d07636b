"""Ray has the private names that a fleet uses."""

from __future__ import annotations

import pytest

from tests.ray_names import WORKERS, PrivateName, problem


@pytest.mark.parametrize("wanted", WORKERS, ids=str)
def test_ray_has_the_name(wanted: PrivateName) -> None:
    if said := problem(wanted, "trainables/workers/ray_internals.py"):
        pytest.fail(said)
