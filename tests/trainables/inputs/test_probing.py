"""The probe in a process of its own: when there is one, what it says, what is kept of it."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ConfigMaker, write_data
from tests.trainables.llm.broken_llms import BROKEN, write_broken
from trainables.config import PretrainConfig
from trainables.errors import LLMError
from trainables.inputs.cache import prepared_path
from trainables.inputs.checked_data import read_data
from trainables.inputs.probing import Probing, check_llm, must_be_probed, probed_beside
from trainables.llm.verdict import Verdict, keep_verdict, known_verdict

pytestmark = pytest.mark.timeout(300)  # a process of its own loads torch, on a busy machine
BEFORE = "an encoder can be trained against it, as a probe has found out before"


def needed(config: PretrainConfig) -> bool:
    return must_be_probed(config, read_data(config).tools)


def test_a_good_llm_is_probed_once(
    make_config: ConfigMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_config()
    data = read_data(config)
    assert check_llm(config, data) == "an encoder can be trained against it"
    assert known_verdict(config.model) == Verdict(hidden_size=32, max_tokens=32768, any_text=True)

    def no_process(*arguments: Any, **options: Any) -> None:
        raise AssertionError("another process")

    monkeypatch.setattr(subprocess, "Popen", no_process)
    assert check_llm(config, data) == BEFORE
    with probed_beside(config) as probe:
        assert probe is None


def test_a_bad_llm_is_refused_by_its_weights(make_config: ConfigMaker, tmp_path: Path) -> None:
    config = make_config(model__llm_model=str(write_broken(tmp_path / "llm", "a NaN")))
    with pytest.raises(LLMError) as refusal:
        check_llm(config, read_data(config))
    assert BROKEN["a NaN"].said in str(refusal.value)
    assert not (tmp_path / "hub").exists()


def look_again_and_again(probe: Probing) -> None:
    while True:
        probe.check()
        time.sleep(0.05)


def test_beside_the_start_a_copy_tells_what_it_can(
    make_config: ConfigMaker, tmp_path: Path
) -> None:
    """And it is told once, as soon as it is known."""
    config = make_config(model__llm_model=str(write_broken(tmp_path / "llm", "a masked LM")))
    with probed_beside(config) as probe:
        assert probe is not None
        with pytest.raises(LLMError, match="it is not causal"):
            look_again_and_again(probe)
        probe.wait()
    assert not (tmp_path / "hub").exists()


def test_waiting_can_be_interrupted(make_config: ConfigMaker) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    with probed_beside(make_config()) as probe:
        assert probe is not None
        with pytest.raises(KeyboardInterrupt):
            probe.wait(interrupt)
    assert probe._process.returncode == -9, "no process is left behind"


def test_a_process_that_dies_is_told_where_nothing_else_will_tell(
    make_config: ConfigMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    config = make_config()
    with pytest.raises(LLMError, match="its probe ended with status 1: it said nothing; is there"):
        check_llm(config, read_data(config))
    copy = Probing(config, whole=False)
    copy.wait()
    copy.close()


def test_texts_are_tried_where_the_llm_may_not_read_them(
    make_config: ConfigMaker, tmp_path: Path
) -> None:
    config = make_config(model__llm_model="embedded")
    assert not needed(config), "bytes are tokens of any text"
    long = [{"name": "a", "description": "very long " * 60}, {"name": "b", "description": "b"}]
    data = write_data(tmp_path / "long", long)
    config = make_config(
        model__llm_model="embedded",
        data__tool_registry=str(data / "tools.json"),
        data__profiling_data=str(data / "profiling.csv"),
    )
    assert needed(config)


def test_texts_that_were_prepared_need_not_be_tried(make_config: ConfigMaker) -> None:
    config = make_config()
    assert needed(config)
    verdict = Verdict(hidden_size=32, max_tokens=100, any_text=False)
    keep_verdict(config.model, verdict)
    assert needed(config)
    path = prepared_path(config, on_gpu=False)
    assert path is not None
    path.parent.mkdir(parents=True)
    path.touch()
    assert not needed(config)


def test_of_an_llm_that_is_not_here_nothing_is_known(
    make_config: ConfigMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_config(model__llm_model="somebody/something")
    assert not needed(config)
    assert check_llm(config, read_data(config)).startswith("not probed: it is not on this machine")
