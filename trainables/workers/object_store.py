"""The shared inputs in the Ray object store: put once, read by every trial without a copy."""

from __future__ import annotations

import ray

from trainables.inputs.shared_inputs import SharedInputs


def put_inputs(inputs: SharedInputs) -> ray.ObjectRef:
    """Numpy arrays are stored once per node and mapped read-only into every reader."""
    return ray.put(inputs)


def get_inputs(reference: ray.ObjectRef) -> SharedInputs:
    inputs = ray.get(reference)
    if not isinstance(inputs, SharedInputs):
        raise TypeError(f"the shared inputs are of type {type(inputs).__name__}")
    return inputs
