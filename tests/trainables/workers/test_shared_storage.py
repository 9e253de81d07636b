"""A machine that does not see the sweep's directory says so before it trains."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from trainables.errors import UserError
from trainables.workers import host
from trainables.workers.shared_storage import check_seen, shared_file


def test_what_all_see(tmp_path: Path) -> None:
    path = tmp_path / "manifest.json"
    path.write_text("{}")
    check_seen(shared_file(path))


@pytest.mark.parametrize("there", [None, "{ }"], ids=["nothing", "a sweep of its own"])
def test_another_or_no_directory_is_named(tmp_path: Path, there: str | None) -> None:
    path = tmp_path / "sweep" / "manifest.json"
    path.parent.mkdir()
    path.write_text("{}")
    file = shared_file(path)
    path.unlink()
    if there is not None:
        path.write_text(there)
    with pytest.raises(UserError, match=f"does not see .*{path.parent}; give a --storage that all"):
        check_seen(file)


def test_a_host_tells_the_driver_instead_of_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "manifest.json"
    path.write_text("{}")
    file = shared_file(path)
    path.unlink()
    told: list[UserError] = []
    link = SimpleNamespace(cannot_start=told.append)
    monkeypatch.setattr(host, "SwitchboardLink", lambda board: link)
    monkeypatch.setattr(host.ray.train, "get_context", lambda: None)
    settings = host.HostSettings(None, None, None, None, 1, storage=file)  # type: ignore[arg-type]
    host.host_worker({"settings": settings})
    assert [str(error) for error in told] == [str(told[0])]
    assert "does not see the sweep's directory" in str(told[0])
