"""A comparison's process: what it measures of start and training, on the tiny LLM."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.conftest import ConfigMaker
from tuning.cli import main
from tuning.comparison.jobs import EARLIER, GATED, Job, progress_path, read_result
from tuning.comparison.worker import fill_cache, train_job


@pytest.mark.parametrize("architecture", [EARLIER, GATED])
def test_a_job_leaves_what_the_report_needs(
    architecture: str, make_config: ConfigMaker, tmp_path: Path
) -> None:
    config = make_config(
        model__architecture=architecture,
        training__num_epochs=2,
        training__field_accuracy_samples=2,
    )
    fill_cache(config, threads=1)
    job = Job("a", config, timed=True, threads=1)
    train_job(job, tmp_path)
    found = read_result(tmp_path, job)
    assert found is not None
    assert found.outcome == "finished"
    assert [h["epoch"] for h in found.history] == [1, 2]
    assert found.final_loss == found.history[-1]["val_loss"]
    assert "field_accuracy" in found.history[-1]
    assert list(found.cached) == ["LLM", "inputs", "encoder"]
    assert "semantic stream" in found.cold
    assert min(*found.cold.values(), found.semantic_rms, found.resource_rms, found.seconds) > 0
    assert progress_path(tmp_path, job).stat().st_size == 2


def test_a_job_that_diverges_says_so(make_config: ConfigMaker, tmp_path: Path) -> None:
    config = make_config(training__learning_rate=1.0, training__max_grad_norm=None)
    config = config.model_copy(
        update={"training": config.training.model_copy(update={"learning_rate": 1e30})}
    )
    fill_cache(config, threads=1)
    job = Job("a", config, timed=False, threads=1)
    train_job(job, tmp_path)
    found = json.loads((tmp_path / "a.json").read_text())
    assert found["outcome"] == "diverged"
    assert "learning_rate" in found["message"]


@pytest.mark.slow
def test_the_command_trains_both_for_real(
    llm_dir: Path, data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten processes on the tiny LLM."""
    monkeypatch.chdir(tmp_path)
    values = {
        "model.llm_model": llm_dir,
        "model.num_attention_heads": 4,
        "data.tool_registry": data_dir / "tools.json",
        "data.profiling_data": data_dir / "profiling.csv",
        "training.field_accuracy_samples": 4,
    }
    given = [text for key, value in values.items() for text in ("--set", f"{key}={value}")]
    size = ["--seeds", "2", "--trials", "2", "--num_epochs", "2", "--out", "out"]
    assert main(["compare", *size, *given]) == 0
    assert {p.name for p in Path("out").iterdir()} == {
        "compare.md", "compare.json", "compare.png", "runs"
    }  # fmt: skip
    assert len(json.loads(Path("out/compare.json").read_text())["histories"][GATED]) == 2
