"""The command ``migrate``: configurations, registries and checkpoints of earlier releases."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from trainables.errors import ConfigError, UserError
from trainables.files import exists, read_input, write_text
from trainables.migration.changes import Change
from tuning.commands.arguments import local_path

TO_MEND = 1


def add_migrate(commands: Any) -> None:
    text = "bring a configuration, a tool registry or a checkpoint of an earlier release here"
    parser = commands.add_parser("migrate", help=text, description=text, allow_abbrev=False)
    kinds = parser.add_subparsers(metavar="config|tools|checkpoint", required=True)
    _add_kind(kinds, "config", _config, "OLD.yaml", "NEW.yaml")
    _add_kind(kinds, "tools", _tools, "OLD.json", "NEW.json")
    checkpoint = _add_kind(kinds, "checkpoint", _checkpoint, "OLD.pt", "DIR")
    text = "the training's configuration, in today's format: LLM, registry, table"
    checkpoint.add_argument("--config", type=Path, required=True, metavar="TRAIN.yaml", help=text)


def _add_kind(kinds: Any, name: str, run: Any, old: str, new: str) -> Any:
    text = f"{old} -> {new}; neither is ever overwritten"
    parser = kinds.add_parser(name, help=text, description=text, allow_abbrev=False)
    parser.add_argument("old", type=Path, metavar=old)
    parser.add_argument("--out", type=local_path, required=True, metavar=new)
    text = "say what would be done, write nothing"
    parser.add_argument("--dry-run", action="store_true", help=text)
    parser.set_defaults(command=run)
    return parser


def _config(options: argparse.Namespace) -> int:
    from trainables.migration.config import migrate_config

    _check_out(options.out)
    text, changes = migrate_config(read_input(options.old, "a YAML file"), str(options.old))
    _show(changes)
    _write_text(options, text)
    problems = list(_what_is_left(text, options))
    for problem in problems:
        print(f"to mend   {problem}")
    return TO_MEND if problems else 0


def _what_is_left(text: str, options: argparse.Namespace) -> Iterable[str]:
    """What today's format refuses, or finds elsewhere than the old file's directory."""
    from trainables.config import parse_config
    from trainables.yaml_config import load_yaml

    mapping = load_yaml(text, str(options.out))
    train = mapping["train"] if isinstance(mapping.get("train"), dict) else mapping
    try:
        before, after = (
            parse_config(train, source=str(options.out), base=path.parent).model_dump()
            for path in (options.old, options.out)
        )
    except ConfigError as error:
        yield str(error)
        return
    for section in ("model", "data"):
        for key, value in before[section].items():
            if value != after[section][key]:
                yield (
                    f"`{section}.{key}` is relative to the file: {value} from the old place, "
                    f"{after[section][key]} from the new one"
                )


def _tools(options: argparse.Namespace) -> None:
    from trainables.migration.tools import migrate_tools

    _check_out(options.out)
    text, changes = migrate_tools(read_input(options.old, "a tool registry"), options.old)
    _show(changes)
    _write_text(options, text)


def _checkpoint(options: argparse.Namespace) -> None:
    from trainables.config import load_config
    from trainables.migration.checkpoint import plan_migration
    from trainables.models.earlier_files import FORMS, read_earlier_file

    _check_out(options.out)
    config = load_config(options.config)
    file = read_earlier_file(options.old)
    print(f"{options.old}: {FORMS[file.form]}")
    migration = plan_migration(file, config, options.out, print)
    _show(migration.changes)
    for note in migration.notes:
        print(f"note      {note}")
    if options.dry_run:
        print("dry run: nothing written")
        return
    try:
        migration.write(options.out)
    except OSError as error:
        raise UserError(f"--out {options.out}: cannot be written: {error}") from None
    print(f"written   {options.out}; Encoder.from_pretrained({str(options.out)!r}) loads it")


def _check_out(out: Path) -> None:
    from trainables.files import check_writable

    if exists(out, "--out"):
        raise UserError(f"--out {out}: exists already and is never overwritten; give another name")
    check_writable(out.parent, "--out")


def _show(changes: Iterable[Change]) -> None:
    lines = [str(change) for change in changes]
    print("\n".join(lines) if lines else "nothing had to change")


def _write_text(options: argparse.Namespace, text: str) -> None:
    if options.dry_run:
        print("dry run: nothing written")
        return
    try:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        write_text(options.out, text)
    except OSError as error:
        raise UserError(f"--out {options.out}: cannot be written: {error}") from None
    print(f"written   {options.out}")
