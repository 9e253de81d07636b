"""What Ray Tune's state of earlier releases refers to is found."""

from __future__ import annotations

import pickle
import sys

import pytest

from tuning.sweep import tune_run
from tuning.sweep.tune_results import MOVED, moved_modules

OF_AN_EARLIER_RELEASE = b"ctuning.experiment\n_name\n."


def test_a_function_of_an_earlier_release_is_found_where_it_is_now() -> None:
    with pytest.raises(ModuleNotFoundError):
        pickle.loads(OF_AN_EARLIER_RELEASE)
    with moved_modules():
        assert pickle.loads(OF_AN_EARLIER_RELEASE) is tune_run._name
    assert not set(MOVED) & set(sys.modules)
