"""Command lines made from configurations: `[PRESET] [--option value ...]`, with errors of one line.

A preset may be a function of some of the options, such as the physical system, that decide the defaults of
others. These options are read first.
"""

import argparse
import contextlib
import inspect
import io
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import NoReturn, TypeVar

import tyro

from lola.config import Config
from lola.errors import LolaError

C = TypeVar("C", bound=Config)


def launch(
    main: Callable[[C], None],
    presets: Mapping[str, Callable[..., C]],
    default: str,
    given: Sequence[str] = (),
) -> None:
    """Run a program on the configuration that the command line describes; the exit code tells failure.

    Arguments:
        main: The program; its docstring is the description in `--help`.
        presets: Complete configurations by name.
        default: The preset used when none is named.
        given: Options, as Python names, that presets take as keyword arguments when they are given.
    """
    program = os.path.basename(sys.argv[0])
    try:
        main(parse(sys.argv[1:], program, main.__doc__ or "", presets, default, given))
    except LolaError as error:
        sys.exit(f"{program}: error: {error}")
    except KeyboardInterrupt:
        print(f"{program}: interrupted; the same command goes on from here", file=sys.stderr)
        sys.exit(130)


def parse(
    arguments: list[str],
    program: str,
    description: str,
    presets: Mapping[str, Callable[..., C]],
    default: str,
    given: Sequence[str] = (),
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
    complaint = io.StringIO()
    try:
        preset = presets[name](**_read(arguments, given))
        with contextlib.redirect_stderr(complaint):
            return tyro.cli(
                type(preset),
                prog=f"{program} {name}",
                description=f"{inspect.cleandoc(description)}\n\nUsage: {usage}",
                args=arguments,
                default=preset,
                config=(tyro.conf.OmitSubcommandPrefixes, tyro.conf.AvoidSubcommands),
            )
    except LolaError as error:
        _refuse(program, str(error))
    except SystemExit as error:
        if not error.code:
            raise
        _refuse(program, _one_line(complaint.getvalue()))


def _read(arguments: list[str], names: Sequence[str]) -> dict[str, str]:
    """The options of these names, among others; one without a value is left for the complete parser."""
    reader = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for name in names:
        reader.add_argument("--" + name.replace("_", "-"), "--" + name, dest=name, nargs="?")
    known, _ = reader.parse_known_args(arguments)
    return {name: value for name, value in vars(known).items() if value is not None}


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
