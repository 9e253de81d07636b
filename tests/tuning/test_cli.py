"""The command line: bad input ends with one line and nothing created; reading stays light."""

from __future__ import annotations

import errno
import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import write_data
from tests.tuning.history.test_sweeps import write_sweep
from trainables.data.profiling import COLUMNS
from tuning.cli import main, make_parser
from tuning.commands.launch import checked_sweep
from tuning.terminal import run_tune_on

RUN_TUNE = Path(__file__).parents[2] / "run_tune.py"
HEAVY = ("torch", "ray", "transformers", "wandb", "optuna")


@pytest.fixture(autouse=True)
def _working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_data(tmp_path / "data")
    Path("good_train.yaml").write_text(
        "data: {tool_registry: data/tools.json, profiling_data: data/profiling.csv}"
    )
    Path("sweep.yaml").write_text("num_trials: 4\n")
    Path("loop").symlink_to("loop")
    Path("typo.yaml").write_text("num_trails: 4\n")
    Path("broken.yaml").write_text("a: [\n")
    Path("space.yaml").write_text("model.dropout: {type: float, low: 0.5, high: 0.1}\n")
    Path("a_file").write_text("")
    Path("empty.csv").write_text("")
    Path("digits.json").write_text('[{"name": ' + "1" * 5000 + "}]")
    levels = [f"l{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9) if i else 'x'}]" for i in range(9)]
    Path("bomb.yaml").write_text("\n".join([*levels, "num_trials: *a8"]))
    Path("desc.json").write_text('[{"name": "a", "desc": "b"}]')
    Path("negative.csv").write_text(",".join(COLUMNS) + "\nr,small,1,2,3,4,-1\n")
    write_sweep(tmp_path / "sweeps", "taken")


def set_(value: str) -> list[str]:
    return ["launch", "--set", value]


FIXED_HEADS = ["--set", "search_space={model.dropout: {type: float, low: 0, high: 0.5}}"]
ONLY_SIZES = ["--set", "search_space={model.d_resource: {type: int, low: 8, high: 9}}"]
OWN_TOOLS = ["--set", "train.data.tool_registry=data/tools.json"]
BAD_INPUT = [
    (["launch", "--config", "missing.yaml"], "missing.yaml: no such file"),
    (["launch", "--config", "broken.yaml"], "broken.yaml: not valid YAML"),
    (["launch", "--config", "typo.yaml"], "unknown key `num_trails` (did you mean `num_trials`?)"),
    (["launch", "--storage", "x" * 300], "cannot be looked up: File name too long"),
    (["status", "x" * 300], "cannot be looked up: File name too long"),
    (["launch", "--name", "taken"], "the name `taken` is already used"),
    (["launch", "--name", "../outside"], "the name '../outside' cannot be used"),
    (["launch", "--num_trials", "0"], "`num_trials` is 0, but must be greater than or equal to 1"),
    (["launch", "--num_trials", "many"], "`num_trials` is 'many'"),
    (["launch", "--num_epochs", "-1"], "`training.num_epochs` is -1"),
    (["launch", "--batch_size", "9999"], "`training.batch_size` is 9999, but must be at most"),
    (["launch", "--storage", "a_file/x"], "is not a directory"),
    (set_("search.type=tpee"), "`search.type` is 'tpee' (did you mean `tpe`?)"),
    (set_("scheduler.type=hyper"), "must be one of asha, median, hyperband, pbt, none"),
    (set_("metric=val_los"), "`metric` is 'val_los' (did you mean `val_loss`?)"),
    (set_("mode=down"), "'min' or 'max'"),
    (set_("search_space=space.yaml"), "`low` is 0.5, but must be at most `high`"),
    (set_("search_space=nowhere.yaml"), "nowhere.yaml: no such file"),
    (
        [*set_("train.model.num_attention_heads=7"), *FIXED_HEADS],
        "must divide the LLM's hidden size 128",
    ),
    (set_("train.model.llm_model=/no/where"), "there is no such directory"),
    (set_("train.model.llm_model=a b c"), "is no directory and no hub id"),
    (set_("train.data.tool_registry=desc.json"), "entry 1 (`a`) uses the key `desc`"),
    (set_("train.data.tool_registry=missing.json"), "missing.json: no such file"),
    (set_("train.data.profiling_data=empty.csv"), "empty.csv: empty"),
    (set_("train.data.tool_registry=data/tools.json"), "is not in the registry"),
    ([*set_("train.data.profiling_data=negative.csv"), *OWN_TOOLS], "latency_ms is -1"),
    (set_("execution.type=packd"), "`execution.type` is 'packd' (did you mean `packed`?)"),
    (set_("execution.lanes=many"), "`execution.lanes`: 'many', but must be `auto` or a whole"),
    (set_("execution.hosts=true"), "`execution.hosts`: True, but must be `auto` or a whole"),
    (
        set_("execution={type: dedicated, workers_per_trial: 0}"),
        "`execution.workers_per_trial` is 0",
    ),
    (
        [
            *set_("scheduler.type=pbt"),
            *ONLY_SIZES,
        ],
        "the search space has none that can be: training.learning_rate",
    ),
    (set_("train.model.num_tools=7"), "`model.num_tools` belonged to an older format"),
    (set_("metric=field_accuracy"), "set `scheduler: {type: none}`"),
    (set_("novalue"), "must have the form a.b=c"),
    (["train", "--config", "missing.yaml"], "missing.yaml: no such file"),
    (["train", "--batch_size", "9999"], "must be at most"),
    (["train", "--learning_rate", "fast"], "`training.learning_rate` is 'fast'"),
    (["train", "--resume"], "no whole checkpoint here"),
    (["train", "--workers", "0"], "--workers is 0"),
    (["train", "--output_dir", "a_file/x"], "is not a directory"),
    ([], "the following arguments are required: COMMAND"),
    (["bogus"], "invalid choice: 'bogus'"),
    (["status"], "the following arguments are required: NAME"),
    (set_('num_trials=!!int ""'), "not valid YAML"),
    (set_("num_trials=!!bool foo"), "not valid YAML"),
    (set_("a=" + "[" * 3000), "not valid YAML"),
    (set_("search.seed=0x" + "f" * 5000), "`search.seed` is a int of enormous size"),
    (set_("num_trials=1" + "0" * 400), "`num_trials` is 1000"),
    (set_('train.data.tool_registry="a\\0b"'), "a path must be printable text"),
    (set_("train.data.tool_registry=~nobody_here/x"), "home directory"),
    (set_("train.data.profiling_data=data"), "is not a regular file"),
    (set_("train.data.tool_registry=digits.json"), "not valid JSON"),
    (set_("train.model.llm_model=data"), "no `config.json` here"),
    (set_("search_space=" + "x" * 300), "cannot be looked up"),
    (["launch", "--config", "data"], "is not a regular file"),
    (["launch", "--config", "bomb.yaml"], "`num_trials` is [[[...]"),
    (["launch", "--batch_size="], "`training.batch_size` is None"),
    (["launch", "--storage", "\0"], "a path must be printable text"),
    (["list", "--storage", "x" * 300], "cannot be looked up"),
    (["validate", "--config", "typo.yaml"], "unknown key `num_trails`"),
    (["status", "takn"], "no sweep `takn` in sweeps (did you mean `taken`?)"),
    (["best", "nothing"], "no sweep `nothing`"),
    (["resume", "nothing"], "no sweep `nothing`"),
    (["export", "taken", "--out", "x"], "the checkpoint of trial_0000 is gone"),
    (["stop", "taken"], "sweep `taken` is not running"),
    (["launch", "--warm_start_from", "takn"], "no sweep `takn` in sweeps (did you mean `taken`?)"),
    (["launch", "--time_budget", "soon"], "'soon', but must be a time such as 45s, 90m, 12h or 2d"),
    (["launch", "--storage", "loop/x"], "loop is not a directory"),
    (["validate", "--storage", "/proc/x"], "/proc cannot be written"),
    (set_("train=nowhere.yaml"), "nowhere.yaml: no such file"),
    (set_("train=7"), "`train` is 7, but must be a path or a mapping of keys to values"),
    (set_("train=typo.yaml"), "typo.yaml: unknown key `num_trails`"),
    (set_("train.training=7"), "`training` is 7, but must be a mapping of keys to values"),
    (set_("train.training.num_epochs=2.5"), "is 2.5, but must be a whole number"),
    (set_("train.model.normalize=often"), "is 'often', but must be true or false"),
    (set_("search_space=[1]"), "is [1], but must be a mapping of keys to values"),
    (set_("search_space.model.dropout.high=2"), "`model.dropout` is 2.0, but must be less than 1"),
    (set_("search_space.model.dropout.low=0.9"), "`low` is 0.9, but must be at most `high`"),
    (set_("search_space.model.dropout.step=9"), "`step` is 9.0, but must be at most"),
    (set_("search_space.model.dropout.log=maybe"), "`model.dropout.log` is 'maybe', but must be"),
    (set_("search_space.model.num_attention_heads.choices=4"), "must be `auto` or a list"),
    (set_("search_space.model.num_attention_heads.choices=[[4]]"), "must be `auto` or a list"),
    (set_("search_space.model.dropout=5"), "`model.dropout` is 5, but must be a mapping"),
    (set_("search_space.model.dropout={low: 0}"), "`model.dropout` needs the key `type`"),
    (set_("warm_start=3"), "`warm_start` is 3, but must be a list"),
    (set_("warm_start=[{model.dropuot: 1}]"), "cannot be searched (did you mean `model.dropout`?)"),
    (set_("warm_start=[{model.dropout: 2}]"), "`warm_start.0`: `model.dropout` is 2, but must be"),
    (set_("warm_start=[{model.num_attention_heads: 7}]"), "must divide the LLM's hidden size 128"),
    (set_("group=0"), "`group` is 0, but must be greater than or equal to 1"),
    (set_("keep_best=null"), "`keep_best` is None, but must be a whole number"),
    (set_(".".join("a" * 3000) + "=1"), "unknown key `a`"),
]


@pytest.mark.parametrize(
    ("arguments", "message"),
    BAD_INPUT,
    ids=lambda v: " ".join(v)[:60] if isinstance(v, list) else "",
)
def test_bad_input_ends_with_one_line_and_nothing_created(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(tmp_path.rglob("*"))
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1
    assert message in captured.err
    assert sorted(tmp_path.rglob("*")) == before


def test_several_faults_of_a_file_are_told_at_once_one_a_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = "r,small,1,2,3,4,-1\nr,small,one,2,3,4,1\nzap\u00a0,small,1,2,3,4,1\n"
    Path("several.csv").write_text(f"{','.join(COLUMNS)}\n{rows}")
    before = sorted(tmp_path.rglob("*"))
    assert main([*set_("train.data.profiling_data=several.csv"), *OWN_TOOLS]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == f"error: {tmp_path / 'several.csv'}: 3 faults:"
    assert [line[:9] for line in lines[1:]] == ["  line 2:", "  line 3:", "  line 4:"]
    assert sorted(tmp_path.rglob("*")) == before


def test_an_unwritable_storage_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*arguments: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr("tempfile.mkdtemp", refuse)
    assert main(["launch"]) == 2
    error = capsys.readouterr().err
    assert "cannot be written (Read-only file system); give another --storage" in error


def test_there_are_as_many_mistakes_as_promised() -> None:
    assert len(BAD_INPUT) >= 60


def test_a_working_directory_that_is_gone_is_named() -> None:
    gone = Path("gone")
    gone.mkdir()
    code = "import os; from tuning.cli import main; os.rmdir(os.getcwd()); exit(main(['list']))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=gone, capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("error: the working directory is gone")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("redirection", "status", "message"),
    [
        (">/dev/full", 1, "error: standard output cannot be written: No space left on device\n"),
        (">&-", 0, ""),
        (">&- 2>&-", 0, ""),
        ("| true", 0, ""),
    ],
)
@pytest.mark.parametrize("command", ["status taken", "validate"])
def test_no_traceback_where_nothing_can_be_written(
    redirection: str, status: int, message: str, command: str
) -> None:
    line = f"{sys.executable} {RUN_TUNE} {command} {redirection}"
    done = subprocess.run(["sh", "-c", line], capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stderr) == (status, message)


def test_a_range_is_changed_by_its_key(capsys: pytest.CaptureFixture[str]) -> None:
    key = "search_space.model.num_attention_heads.choices"
    assert main(["validate", "--set", f"{key}=[2, 4]", "--set", "train=good_train.yaml"]) == 0
    assert "3 tools, 42 training" in capsys.readouterr().out


def test_a_batch_size_on_no_step_need_not_fit(capsys: pytest.CaptureFixture[str]) -> None:
    """42 training rows allow 8, 24 and 40; 44 is never drawn."""
    batch = "search_space={training.batch_size: {type: int, low: 8, high: 44, step: 16}}"
    assert main(["validate", "--set", batch, "--set", "train=good_train.yaml"]) == 0
    line = "search       training.batch_size: 8, 24, 40 (44 is not on a step of 16)"
    assert line in capsys.readouterr().out.splitlines()


LIGHT = [
    ["--help"],
    ["launch", "--help"],
    ["compare", "--help"],
    ["list"],
    ["status", "taken"],
    ["trials", "taken", "--json"],
    ["validate"],
]


@pytest.mark.parametrize("arguments", LIGHT, ids=" ".join)
def test_reading_imports_nothing_heavy(arguments: list[str]) -> None:
    code = (
        "import sys\nfrom tuning.cli import main\n"
        "try:\n    status = main(sys.argv[1:])\n"
        "except SystemExit as stop:\n    status = stop.code\n"
        f"heavy = [m for m in {HEAVY!r} if m in sys.modules]\n"
        "print('heavy:', heavy, file=sys.stderr); sys.exit(status)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[-1] == "heavy: []"


@pytest.mark.parametrize("command", ["list", "status taken", "trials taken"])
def test_json_is_one_document_on_stdout(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*command.split(), "--json"]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)
    assert captured.err == ""


@pytest.mark.parametrize("command", ["list", "status taken", "trials taken"])
def test_the_same_as_text(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(command.split()) == 0
    assert "taken" in capsys.readouterr().out or command.startswith("trials")


def test_the_train_flags_are_the_promised_ones() -> None:
    options = make_parser().parse_args(
        "train --config trainables/configs/pretrain_encoder.yaml --batch_size 16 --num_epochs 100 "
        "--log_wandb --learning_rate 1e-3 --output_dir out --seed 3 --resume --set a.b=c".split()
    )
    assert options.log_wandb
    assert options.resume
    assert options.set == ["a.b=c"]


@pytest.mark.parametrize(("more", "logs"), [([], True), (["--set", "log_wandb=false"], False)])
def test_set_wins_over_a_flag(more: list[str], logs: bool) -> None:
    options = make_parser().parse_args(["launch", "--log_wandb", *more])
    sweep, _ = checked_sweep(options, "any")
    assert sweep.config.log_wandb is logs


def test_run_tune_is_a_thin_door() -> None:
    assert len(RUN_TUNE.read_text().splitlines()) < 30
    done = subprocess.run(
        [sys.executable, str(RUN_TUNE), "status", "nobody"],
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: no sweep `nobody`")


def test_validate_states_the_cost(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["validate", "--config", "sweep.yaml"]) == 0
    out = capsys.readouterr().out
    assert "7 tools, 1533 training and 168 held-out rows" in out
    assert "trials       4," in out
    assert "FLOP" in out


def test_a_shown_command_finds_the_sweep_wherever_it_lies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run_tune_on(Path("sweeps/mine").absolute(), "resume").endswith("run_tune.py resume mine")
    elsewhere = run_tune_on(tmp_path / "a b" / "mine", "resume")
    assert elsewhere.endswith("run_tune.py resume mine --storage 'a b'")
    arguments = shlex.split(elsewhere)[2:]
    assert make_parser().parse_args(arguments).storage == "a b"
