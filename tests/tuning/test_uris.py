"""A URI where a path is asked for is refused, and makes no folder named after its scheme."""

from __future__ import annotations

from pathlib import Path

import pytest

from trainables.config import DEFAULT_CONFIG, load_config
from trainables.errors import ConfigError
from trainables.files import is_uri
from tuning.cli import main

URIS = ["s3://bkt/sweeps", "gs://b/x", "az://c", "file:///tmp/x", "S3://B"]


@pytest.mark.parametrize("uri", URIS)
@pytest.mark.parametrize(
    "command",
    [
        ["launch", "--storage"],
        ["launch", "--set", "storage"],
        ["validate", "--storage"],
        ["list", "--storage"],
        ["export", "x", "--out"],
        ["refit", "x", "--out"],
        ["compare", "--out"],
        ["train", "--output_dir"],
    ],
    ids=" ".join,
)
def test_a_uri_is_refused(
    command: list[str],
    uri: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    given = [*command[:-1], f"storage={uri}"] if command[-1] == "storage" else [*command, uri]
    assert main(given) == 2
    error = capsys.readouterr().err
    assert f"{uri}" in error
    assert "is a URI, but must be a path of a file system" in error
    assert list(tmp_path.iterdir()) == []


def test_a_path_of_a_file_may_not_be_one_either() -> None:
    with pytest.raises(ConfigError, match="is a URI"):
        load_config(DEFAULT_CONFIG, ["data.profiling_data=s3://b/x.csv"])


@pytest.mark.parametrize("path", ["sweeps", "/a//b", "a:/b", "./s3:/x", "C:\\x", "1://x"])
def test_paths_are_none(path: str) -> None:
    assert not is_uri(path)
