"""Command lines made from configurations: `[PRESET] [--option value ...]`, with errors of one line."""

import contextlib
import inspect
import io
import os
import sys
from collections.abc import Callable, Mapping
from typing import NoReturn, TypeVar

import tyro

from lola.config import Config
from lola.errors import LolaError

C = TypeVar("C", bound=Config)


def launch(main: Callable[[C], None], presets: Mapping[str, Callable[[], C]], default: str) -> None:
    """Run a program on the configuration that the command line describes; the exit code tells failure.

    Arguments:
        main: The program; its docstring is the description in `--help`.
        presets: Complete configurations by name.
        default: The preset used when none is named.
    """
    _run(main, lambda program: parse(sys.argv[1:], program, main.__doc__ or "", presets, default))


def launch_alone(main: Callable[[C], None], kind: type[C]) -> None:
    """Run a program that has no presets on the configuration that the command line describes.

    Arguments:
        main: The program; its docstring is the description in `--help`.
        kind: Its configuration; fields without a default are required.
    """
    _run(main, lambda program: _parse(sys.argv[1:], program, inspect.cleandoc(main.__doc__ or ""), kind))


def _run(main: Callable[[C], None], read: Callable[[str], C]) -> None:
    program = os.path.basename(sys.argv[0])
    try:
        main(read(program))
    except LolaError as error:
        sys.exit(f"{program}: error: {error}")
    except KeyboardInterrupt:
        print(f"{program}: interrupted; the same command goes on from here", file=sys.stderr)
        sys.exit(130)


def parse(
    arguments: list[str], program: str, description: str, presets: Mapping[str, Callable[[], C]], default: str
) -> C:
    """The configuration of a command line.

    Raises:
        SystemExit: With 0 after `--help`, with 2 and one line on an unknown or impossible option.
    """
    name = default
    if arguments and not arguments[0].startswith("-"):
        name, *arguments = arguments
    if name not in presets:
        _refuse(program, f"no preset is called {name!r}; there are {', '.join(presets)}")
    names = ", ".join(f"{other} (default)" if other == default else other for other in presets)
    usage = f"{program} [PRESET] [OPTIONS]\n\nPresets: {names}. Defaults below are those of {name}."
    try:
        preset = presets[name]()
    except LolaError as error:
        _refuse(program, str(error))
    description = f"{inspect.cleandoc(description)}\n\nUsage: {usage}"
    return _parse(arguments, program, description, type(preset), preset, name)


def _parse(
    arguments: list[str],
    program: str,
    description: str,
    kind: type[C],
    default: C | None = None,
    preset: str = "",
) -> C:
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            return tyro.cli(
                kind,
                prog=f"{program} {preset}".strip(),
                description=description,
                args=arguments,
                default=default,
                config=(tyro.conf.OmitSubcommandPrefixes, tyro.conf.AvoidSubcommands),
            )
    except LolaError as error:
        _refuse(program, str(error))
    except SystemExit as error:
        if not error.code:
            raise
        _refuse(program, _one_line(complaint.getvalue()))


def _refuse(program: str, message: str) -> NoReturn:
    print(f"{program}: error: {message}", file=sys.stderr)
    raise SystemExit(2)


def _one_line(box: str) -> str:
    """The text of a drawn box, without its frame, its title and its hint."""
    frame = str.maketrans(dict.fromkeys("─│╭╮╰╯-", " ") | {"-": "-"})
    lines = [line.translate(frame).strip() for line in box.splitlines()]
    lines = [
        line for line in lines if line and set(line) != {"-"} and not line.startswith("For full helptext")
    ]
    text = " ".join(lines[1:] or lines)
    return text.split(" Argument helptext:")[0] + " (see --help)"
