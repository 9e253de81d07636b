"""Every file of a sweep's directory damaged in every way: ``python -m tests.faults``.

Prints what the commands and the resume path said of each; the exit status tells whether every
damage was reported and nothing else was lost. As root also a read-only and a full file system.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import traceback
from pathlib import Path

from tests.faults.damage import FAULTS, OTHERS, SOURCES, Answers, ask, assert_survived
from tests.faults.filesystems import try_full, try_read_only
from tests.faults.specimen import make_specimen


def main() -> int:
    wrong = 0
    with tempfile.TemporaryDirectory() as place:
        specimen = make_specimen(Path(place))
        sound = ask(copy(specimen, Path(place)))
        for name in (*SOURCES, *OTHERS):
            for fault in FAULTS:
                wrong += not survived(specimen, Path(place), name, fault, sound)
        print(f"{len(SOURCES) + len(OTHERS)} files x {len(FAULTS)} faults, {wrong} not survived")
        if os.geteuid() == 0:
            try_read_only(copy(specimen, Path(place)))
            try_full(specimen, Path(place))
    return wrong


def copy(specimen: Path, place: Path) -> Path:
    shutil.rmtree(place / "copy", ignore_errors=True)
    return Path(shutil.copytree(specimen, place / "copy" / "sweeps" / specimen.name))


def survived(specimen: Path, place: Path, name: str, fault: str, sound: Answers) -> bool:
    directory = copy(specimen, place)
    FAULTS[fault](directory / name)
    try:
        answers = ask(directory)
        assert_survived(name, fault, answers, sound)
    except BaseException:  # noqa: BLE001 - whatever it raises is what is looked for
        print(f"{name} {fault}: NOT SURVIVED\n{traceback.format_exc()}")
        return False
    said = dict.fromkeys(line.replace(str(directory), ".") for line in answers.said)
    print(f"{name} {fault}: {' | '.join(said) or 'nothing needs it'}")
    return True


if __name__ == "__main__":
    raise SystemExit(main())
