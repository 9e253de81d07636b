"""A process without a home or a user's name is given both; no other's directory is taken for it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from trainables.errors import UserError
from tuning.home import missing_identity, private_directory

ROOT = Path(__file__).parents[2]
NOBODY = 12345
KEPT = f"encoder-tuning-{NOBODY}"
# As this number in a user namespace: without rights, and without a line in /etc/passwd.
UNSHARE = ("unshare", "--user", f"--map-user={NOBODY}", f"--map-group={NOBODY}")


def can_unshare() -> bool:
    if shutil.which("unshare") is None:
        return False
    return subprocess.run([*UNSHARE, "true"], capture_output=True).returncode == 0


needs_unshare = pytest.mark.skipif(not can_unshare(), reason="no user namespaces here")


@pytest.fixture
def temporary(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path / f"encoder-tuning-{os.getuid()}"


def no_such_user(number: int) -> None:
    raise KeyError(f"getpwuid(): uid not found: {number}")


def test_who_has_both_is_given_nothing(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/somewhere")
    monkeypatch.setenv("USER", "me")
    assert missing_identity() == {}
    assert not temporary.exists()


@pytest.mark.parametrize("home", [None, "", "~", "~/of/me"])
def test_the_system_may_know(
    home: str | None, temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", home) if home is not None else monkeypatch.delenv("HOME")
    import pwd

    assert missing_identity()["HOME"] == pwd.getpwuid(os.getuid()).pw_dir
    assert not temporary.exists()


def test_who_has_none_is_given_both(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HOME", "USER", "LOGNAME", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pwd.getpwuid", no_such_user)
    assert missing_identity() == {"HOME": str(temporary), "USER": f"user{os.getuid()}"}
    assert temporary.stat().st_mode & 0o777 == 0o700
    assert missing_identity()["HOME"] == str(temporary), "the same one the next time"


def test_a_directory_that_others_can_change_is_refused(temporary: Path) -> None:
    temporary.mkdir()
    temporary.chmod(0o777)
    with pytest.raises(UserError, match="can be read or changed by others; set HOME"):
        private_directory()
    temporary.rmdir()
    elsewhere = temporary.with_name("elsewhere")
    elsewhere.mkdir(mode=0o700)
    temporary.symlink_to(elsewhere)
    with pytest.raises(UserError, match="can be read or changed by others; set HOME"):
        private_directory()
    temporary.unlink()
    temporary.write_text("")
    with pytest.raises(UserError, match="cannot be used"):
        private_directory()


def as_nobody(
    place: Path, *arguments: str, timeout: float = 60, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Python with nothing in its environment but a short place for temporary files."""
    values = {"PATH": os.environ["PATH"], "TMPDIR": str(place), "PYTHONPATH": str(ROOT)}
    values |= variables
    command = [*UNSHARE, sys.executable, "-B", *arguments]
    return subprocess.run(
        command, cwd=place, env=values, capture_output=True, text=True, timeout=timeout
    )


@pytest.fixture
def place() -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp(prefix="home_", dir="/tmp"))  # short: Ray has sockets there
    yield directory
    shutil.rmtree(directory, ignore_errors=True)


@needs_unshare
@pytest.mark.parametrize(
    ("command", "status", "said"),
    [
        (["list"], 0, "no sweeps in sweeps yet"),
        (["launch"], 2, "error: `RAY_ADDRESS` is `foo`"),  # Ray Train is imported by then
    ],
    ids=["list", "launch"],
)
def test_commands_of_nobody(place: Path, command: list[str], status: int, said: str) -> None:
    done = as_nobody(place, str(ROOT / "run_tune.py"), *command, RAY_ADDRESS="foo")
    assert done.returncode == status, done.stderr
    assert (done.stdout + done.stderr).startswith(said), done.stdout + done.stderr
    assert [path.name for path in place.iterdir()] == [KEPT]


STARTS_RAY = """
from pathlib import Path
from tuning.commands.identity import identified
with identified():
    from tuning.execution.cluster import ray_cluster
    from tuning.execution.finding_ray import find_ray
    with ray_cluster(find_ray(), Path("ray.log")) as cluster:
        pass
    print(cluster.slots, cluster.joined)
"""


@needs_unshare
@pytest.mark.ray
@pytest.mark.timeout(240)
def test_nobody_has_a_ray(place: Path) -> None:
    """Without a name, and with a home that takes no token."""
    done = as_nobody(place, "-c", STARTS_RAY, timeout=200, HOME="/proc/none")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout == f"{os.cpu_count()} False\n"
    assert [path.name for path in (place / KEPT).iterdir()] == ["ray_auth_token"]
