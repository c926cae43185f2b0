"""Command lines made from configurations: `[PRESET] [--option value ...]`, with errors of one line.

Where a configuration holds one of several kinds, such as a network, `--PATH.type KIND` puts that kind's
defaults in place of the preset's; its own options follow as any others.

A preset may be a function of some of the options, such as the physical system, that decide the defaults of
others. These options are read first.
"""

import argparse
import atexit
import contextlib
import dataclasses
import inspect
import io
import logging
import os
import re
import sys
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn, TypeVar

import tyro

from lola.core.config import Config, deferred_validation, option_name
from lola.core.errors import ConfigError, LolaError
from lola.core.filesystem import describe_os_error
from lola.core.short_help import positional_names, short_help

C = TypeVar("C", bound=Config)


def launch(
    main: Callable[[C], None],
    presets: Mapping[str, Callable[..., C]],
    default: str,
    given: Mapping[str, Any] | None = None,
) -> None:
    """Run a program on the configuration that the command line describes; the exit code is 0 if it succeeds.

    Arguments:
        main: The program; its docstring is the description in `--help`.
        presets: Complete configurations by name.
        default: The preset used when none is named.
        given: Options, as Python names, that presets take as keyword arguments when they are given, and their
            defaults: one that is a tuple takes several values.
    """
    _run(main, lambda program: parse(sys.argv[1:], program, main.__doc__ or "", presets, default, given))


def launch_alone(main: Callable[[C], None], kind: type[C]) -> None:
    """Run a program that has no presets on the configuration that the command line describes.

    The program's docstring is the description in `--help`; fields of `kind` without a default are required.
    """
    _run(main, lambda program: _parse(sys.argv[1:], program, inspect.cleandoc(main.__doc__ or ""), kind))


def _run(main: Callable[[C], None], read: Callable[[str], C]) -> None:
    code: list[int] = []
    atexit.register(_skip_teardown, main, code)  # before libraries are imported: it is called after theirs
    try:
        _execute(main, read)
    except SystemExit as end:
        code.append(end.code if isinstance(end.code, int) else int(end.code is not None))
        raise
    code.append(0)


def _skip_teardown(main: Callable[[C], None], code: list[int]) -> None:
    """End the process, if it is this program's and ended as intended, with an exit code.

    Python would free all that PyTorch, Ray and MLflow have imported, one object after the other, which takes
    seconds, and half a minute on a busy machine.
    """
    if code and getattr(main, "__globals__", None) is vars(sys.modules["__main__"]):
        logging.shutdown()
        try:
            for stream in filter(None, (sys.stdout, sys.stderr)):
                stream.flush()
        except (OSError, ValueError):
            return  # Python reports it
        os._exit(code[0])


def _execute(main: Callable[[C], None], read: Callable[[str], C]) -> None:
    program = os.path.basename(sys.argv[0])
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # output appears at once, also in a file
            # File names may have characters that an ASCII console (LC_ALL=C) cannot print
            stream.reconfigure(line_buffering=True, errors="backslashreplace")
    try:
        main(read(program))
    except LolaError as error:
        sys.exit(f"{program}: error: {error}")
    except BrokenPipeError:  # the reader has closed the pipe, as in `--help | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)  # as of a program that SIGPIPE ends
    except OSError as error:
        line = describe_os_error(error)
        if not line:
            raise
        sys.exit(f"{program}: error: {line}")
    except KeyboardInterrupt as interrupt:
        left = f"; {interrupt}" if str(interrupt) else ""
        print(f"{program}: interrupted; run the same command again to resume{left}", file=sys.stderr)
        sys.exit(130)


def parse(
    arguments: list[str],
    program: str,
    description: str,
    presets: Mapping[str, Callable[..., C]],
    default: str,
    given: Mapping[str, Any] | None = None,
) -> C:
    """The configuration of a command line.

    Raises:
        SystemExit: With 0 after `--help`, with 2 and one line on an unknown or impossible option.
    """
    name = default
    if arguments and not arguments[0].startswith("-"):
        name, *arguments = arguments
    if name not in presets:
        _refuse(program, f"unknown preset {name!r}; choose from {', '.join(presets)}")
    names = ", ".join(f"{other} (default)" if other == default else other for other in presets)
    usage = f"{program} [PRESET] [OPTIONS]\n\nPresets: {names}. Defaults below are those of {name}."
    try:
        preset = presets[name](**_read(arguments, given or {}))
        with deferred_validation():  # options that follow may yet make the kinds' defaults fit
            preset, arguments = choose_kinds(preset, arguments)
    except LolaError as error:
        _refuse(program, str(error))
    if choices := _choices(preset):
        usage += "\n\nKinds of parts, by name:\n" + "\n".join(
            f"  --{path.replace('_', '-')}.type {{{','.join(kinds)}}}" for path, kinds in choices.items()
        )
    _refuse_superseded(program, arguments, type(preset))
    description = f"{inspect.cleandoc(description)}\n\nUsage: {usage}"
    return _parse(arguments, program, description, type(preset), preset, name)


def _refuse_superseded(program: str, arguments: Sequence[str], kind: type[Config]) -> None:
    """Refuse options of parts that are set by an option of the whole configuration."""
    given = {argument.partition("=")[0].replace("_", "-") for argument in arguments}
    for path, name in kind.superseded.items():
        if option_name(path) in given:
            _refuse(program, f"{option_name(path)} is set by {option_name(name)}; use that instead")


def _refuse_ineffective(program: str, arguments: Sequence[str], config: C, default: C | None) -> None:
    """Refuse options that change parts which have no effect."""
    for argument in arguments:
        option = argument.partition("=")[0].replace("_", "-")
        for name, reason in config.ineffective.items():
            changed = default is None or getattr(config, name) != getattr(default, name)
            if changed and option.startswith(f"{option_name(name)}."):
                _refuse(program, f"{option} has no effect: {reason}")


def _parse(
    arguments: list[str],
    program: str,
    description: str,
    kind: type[C],
    default: C | None = None,
    preset: str = "",
) -> C:
    if {"-h", "--help"} & set(arguments):
        if default is None:
            description += f"\n\nUsage: {' '.join((program, *positional_names(kind), '[OPTIONS]'))}"
        print(f"{description}\n\n{short_help(kind, default)}")
        raise SystemExit(0)
    if not arguments and positional_names(kind):
        _refuse(program, f"give {' '.join(positional_names(kind))}; see --help")
    arguments = ["--help" if argument == "--help-all" else argument for argument in arguments]
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint), deferred_validation():
            parsed = tyro.cli(
                kind,
                prog=f"{program} {preset}".strip(),
                description=description,
                args=arguments,
                default=default,
                config=(tyro.conf.AvoidSubcommands, tyro.conf.PositionalMetavarFromFieldName),
            )
        config = typing.cast(C, parsed)
        config.check_options()
    except LolaError as error:
        _refuse(program, str(error))
    except SystemExit as error:
        if not error.code:
            raise
        text = _one_line(complaint.getvalue())
        missing = [name for name in positional_names(kind) if f" {name} " in text]
        if missing and text.startswith("Missing"):
            text = f"give {' '.join(missing)}; see --help"
        _refuse(program, text)
    _refuse_ineffective(program, arguments, config, default)
    return config


def _read(arguments: list[str], given: Mapping[str, Any]) -> dict[str, Any]:
    """The options of these names, among others; one without a value is left for the complete parser."""
    reader = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for name, default in given.items():
        values: Any = "*" if isinstance(default, tuple) else "?"
        reader.add_argument("--" + name.replace("_", "-"), "--" + name, dest=name, nargs=values)
    known, _ = reader.parse_known_args(arguments)
    found = {name: value for name, value in vars(known).items() if value is not None}
    return {name: tuple(value) if isinstance(value, list) else value for name, value in found.items()}


def choose_kinds(config: C, arguments: Sequence[str]) -> tuple[C, list[str]]:
    """Take `--PATH.type KIND` and `--PATH.type=KIND` out of a command line, and what they choose into a copy.

    Raises:
        ConfigError: There is no such choice, or no such kind.
    """
    rest: list[str] = []
    left = iter(arguments)
    for argument in left:
        name, equals, kind = argument.partition("=")
        if name.startswith("--") and name.endswith(".type"):
            path = name.removeprefix("--").removesuffix(".type").replace("-", "_")
            config = _with_kind(config, path, kind if equals else next(left, ""))
        else:
            rest.append(argument)
    return config, rest


def _with_kind(config: C, path: str, kind: str) -> C:
    choices = _choices(config)
    if path not in choices:
        parts = ", ".join(choices) or "no part"
        raise ConfigError(f"unknown option --{path}.type; kinds can be chosen for {parts}")
    by_class = {kind.__name__: kind for kind in choices[path].values()}
    kinds = by_class | choices[path]  # names of classes are those that manifests hold
    if kind not in kinds:
        raise ConfigError(f"--{path}.type: unknown kind {kind!r}; choose from {', '.join(choices[path])}")
    *names, last = path.split(".")
    owners = [config]
    for name in names:
        owners.append(getattr(owners[-1], name))
    part: Any = kinds[kind]()
    for owner, name in zip(reversed(owners), (last, *reversed(names)), strict=True):
        part = owner.replace(**{name: part})
    return part


def _choices(config: Config, prefix: str = "") -> dict[str, dict[str, type[Config]]]:
    """The kinds by name of every field that holds one of several, by its dotted path."""
    found = {}
    hints = typing.get_type_hints(type(config), include_extras=True)
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if isinstance(value, Config) and typing.get_origin(hints[field.name]) is not typing.Annotated:
            members = typing.get_args(hints[field.name])
            kinds = {
                member.kind_name or member.__name__: member
                for member in members
                if issubclass(member, Config)
            }
            if len(kinds) > 1:
                found[prefix + field.name] = kinds
            found |= _choices(value, f"{prefix}{field.name}.")
    return found


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
    text = " ".join(lines[1:] or lines).split(" Argument helptext:")[0]
    if text.startswith("Unrecognized"):
        named, _, near = text.partition("Perhaps you meant")
        unknown = re.findall(r"--[^\s,]+", named)
        meant = re.findall(r"--[\w.-]+", near)[:1] if len(unknown) == 1 else []
        hint = f"; did you mean {meant[0]}?" if meant else ""
        text = f"unknown option {', '.join(unknown)}{hint}" if unknown else text
    return f"{text} (see --help)"
