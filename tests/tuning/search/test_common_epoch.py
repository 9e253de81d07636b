"""Stopped trials beside finished ones: what they would have come to."""

from __future__ import annotations

import math

import pytest

from tuning.search.common_epoch import at_a_common_epoch


def test_a_stopped_trial_falls_on_as_the_others_did() -> None:
    finished = {1: 4.0, 2: 2.0, 3: 1.0}
    slower = {1: 4.0, 2: 3.0, 3: 2.0}
    stopped = {1: 8.0}
    found = at_a_common_epoch([finished, slower, stopped, {}])
    # From epoch 1 to 3 the two fell to a quarter and a half: the median in logarithms.
    assert found[:3] == pytest.approx([0.0, math.log(2), math.log(8) - math.log(8) / 2])
    assert found[3] is None, "nothing is seen of it"


def test_epochs_are_chained_by_those_who_went_through_both() -> None:
    found = at_a_common_epoch([{1: 8.0, 3: 4.0, 9: 1.0}, {1: 8.0, 3: 2.0}, {1: 8.0}])
    third = math.log(2) - math.log(4)
    first = math.log(8) + (math.log(0.5) + math.log(0.25)) / 2 - math.log(4)
    assert found == pytest.approx([0.0, third, first])


def test_what_can_be_negative_is_not_brought_to_a_logarithm() -> None:
    assert at_a_common_epoch([{1: -1.0, 2: -3.0}, {1: 0.5}]) == pytest.approx([-3.0, -1.5])
    assert at_a_common_epoch([]) == []
    assert at_a_common_epoch([{}, {}]) == [None, None]


def test_those_stopped_together_keep_their_order() -> None:
    stopped = [{1: 3.0}, {1: 2.0}, {1: 2.5}]
    found = at_a_common_epoch([*stopped, {1: 1.0, 9: 0.1}])
    assert sorted(range(3), key=lambda i: found[i] or 0) == [1, 2, 0]
