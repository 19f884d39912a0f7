"""Writes the generated part of docs/command-line.md from the commands themselves.

python docs/generate.py           write it
python docs/generate.py --check   exit with 1 if the page is stale
"""

from __future__ import annotations

import argparse
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PAGE = Path(__file__).resolve().parent / "command-line.md"
MARK = "<!-- From here on written by docs/generate.py. Do not edit. -->\n"
WIDTH = 80

# Built from the parameters and not from `--help`, whose frame and words change with typer, rich and the terminal.


def main() -> int:
    parser = argparse.ArgumentParser(description="Write the generated part of docs/command-line.md.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 if the page is stale")
    check = parser.parse_args().check
    old = PAGE.read_text(encoding="utf-8")
    new = regenerated(old)
    if not check:
        PAGE.write_text(new, encoding="utf-8")
    elif new != old:
        sys.stderr.write(f"{PAGE.name} is stale. Run: python docs/generate.py\n")
        return 1
    return 0


def regenerated(page: str) -> str:
    """The page with its generated part written anew; what stands above the mark stays."""
    from typer.main import get_command

    from ctxkit.cli import app

    head, mark, _ = page.partition(MARK)
    if not mark:
        raise SystemExit(f"{PAGE.name} has no line {MARK.strip()!r}")
    return head + MARK + "".join(_section(name, command) for name, command in _walk(get_command(app), "ctxkit"))


def _walk(command: Any, name: str) -> Iterator[tuple[str, Any]]:
    yield name, command
    for inner, one in getattr(command, "commands", {}).items():
        yield from _walk(one, f"{name} {inner}")


def _section(name: str, command: Any) -> str:
    arguments = [one for one in command.params if one.param_type_name == "argument"]
    options = [one for one in command.params if one.param_type_name == "option" and "--help" not in one.opts]
    commands = getattr(command, "commands", {})
    usage = [name, *(["[OPTIONS]"] if options else []), *map(_metavar, arguments), *(["COMMAND"] if commands else [])]
    lines = [f"Usage: {' '.join(usage)}"]
    for paragraph in (command.help or "").strip().split("\n\n"):
        lines += ["", *textwrap.wrap(" ".join(paragraph.split()), WIDTH)]
    lines += _table("Arguments", [(_metavar(one), _described(one)) for one in arguments])
    lines += _table("Options", [(_metavar(one), _described(one)) for one in options])
    lines += _table("Commands", [(inner, _first_sentence(one.help)) for inner, one in commands.items()])
    return f"\n## {name}\n\n```text\n" + "\n".join(lines) + "\n```\n"


def _table(title: str, rows: list[tuple[str, str]]) -> list[str]:
    width = max((len(left) for left, _ in rows), default=0) + 4
    lines = ["", f"{title}:"] if rows else []
    for left, right in rows:
        first, *rest = textwrap.wrap(right, WIDTH - width, break_on_hyphens=False) or [""]
        lines.append(f"  {left:<{width - 2}}{first}".rstrip())
        lines += [" " * width + line for line in rest]
    return lines


def _metavar(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        name = parameter.name.upper() + ("..." if parameter.nargs == -1 else "")
        return name if parameter.required else f"[{name}]"
    return ", ".join(parameter.opts) + ("" if parameter.is_flag else " VALUE")


def _described(parameter: Any) -> str:
    text = " ".join((parameter.help or "").split()).replace("\\[", "[")  # rich markup writes a bracket as \[
    default = parameter.default
    if parameter.required or default is None or default is False or "[default:" in text:
        return text
    return f"{text} [default: {default}]".strip()


def _first_sentence(text: str | None) -> str:
    return " ".join((text or "").split("\n\n")[0].split()).split(". ")[0].rstrip(".") + "."


if __name__ == "__main__":
    sys.exit(main())
