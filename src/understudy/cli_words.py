"""The words after a command, as its settings: flags made from a dataclass, and refusals in one line."""

import io
import re
from contextlib import redirect_stderr
from itertools import groupby
from typing import TypeVar

Arguments = TypeVar("Arguments")


def parse(kind: type[Arguments], words: list[str], name: str, description: str | None = None) -> Arguments:
    """The settings of one command. Prints help and exits where that is asked for; raises ConfigError in one line."""
    import tyro

    from understudy.core.errors import ConfigError

    config = (tyro.conf.PositionalRequiredArgs, tyro.conf.PositionalMetavarFromFieldName, tyro.conf.UseAppendAction)
    box = io.StringIO()
    try:
        with redirect_stderr(box):
            return tyro.cli(kind, args=words, prog=f"understudy {name}", description=description, config=config)
    except SystemExit as stop:
        if not stop.code:
            raise
        raise ConfigError(f"{name}: {_in_one_line(box.getvalue())} `understudy {name} --help` tells more.") from None


def value_of(words: list[str], flag: str) -> str | None:
    """What follows `flag`, or stands behind its `=`; None where it is not there."""
    for word, following in zip(words, [*words[1:], ""], strict=True):
        if word == flag or word.startswith(f"{flag}="):
            value = following if word == flag else word.partition("=")[2]
            if not value or value.startswith("--"):
                from understudy.core.errors import ConfigError

                raise ConfigError(f"{flag}: say which file, after it.")
            return value
    return None


def _in_one_line(box: str) -> str:
    """What is wrong, out of the box that tyro draws: up to its first rule, and the flag that it suggests."""
    rows = [row.strip(" │") for row in box.splitlines() if row.strip() and row[0] not in "╭╰"]
    parts = [" ".join(part) for rule, part in groupby(rows, lambda row: set(row) <= set("─-")) if not rule]
    what, *more = parts if "╭" in box else parts[1:]  # without UTF-8 it draws no frame, and its title is a part
    near = re.search(r"--[\w.-]+", more[0]) if more and more[0].startswith("Perhaps") else None
    return f"{what.rstrip('.')}." + (f" Did you mean `{near[0]}`?" if near else "")
