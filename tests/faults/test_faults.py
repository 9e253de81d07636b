"""Damaged files are reported, nothing else is lost; ``python -m tests.faults`` tries every file."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.faults.damage import FAULTS, OTHERS, SOURCES, Answers, ask, assert_survived
from tests.faults.specimen import make_specimen


@pytest.fixture(scope="module")
def specimen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_specimen(tmp_path_factory.mktemp("faults"))


@pytest.fixture
def copied(specimen: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(specimen, tmp_path / "sweeps" / specimen.name))


@pytest.fixture(scope="module")
def sound(specimen: Path, tmp_path_factory: pytest.TempPathFactory) -> Answers:
    place = tmp_path_factory.mktemp("sound") / "sweeps" / specimen.name
    return ask(Path(shutil.copytree(specimen, place)))


def test_no_file_is_forgotten(specimen: Path) -> None:
    files = {str(p.relative_to(specimen)) for p in specimen.rglob("*") if p.is_file()}
    assert files == {*SOURCES, *OTHERS}


def test_a_sound_sweep_is_read_and_goes_on(sound: Answers) -> None:
    assert set(sound.status.values()) == {0}
    assert sound.said == []
    assert [(number, epoch) for number, _, epoch in sound.starts or []] == [(2, 2)]


SIMILAR = ("encoder.json", "optimizer.safetensors", "random.safetensors")
SHORT = [name for name in SOURCES if not name.endswith(SIMILAR)]


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("name", [*SHORT, "lock", "tune/trial_0002/checkpoint_000001/meta.json"])
def test_a_damaged_file_is_reported_and_nothing_else_is_lost(
    name: str, fault: str, copied: Path, sound: Answers
) -> None:
    FAULTS[fault](copied / name)
    assert_survived(name, fault, ask(copied), sound)
