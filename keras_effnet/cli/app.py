"""Command line entry point. A command module is imported only when its command runs, TensorFlow only when needed."""

from __future__ import annotations

import importlib
import io
import os
import sys
from contextlib import suppress
from typing import NoReturn

import click

from keras_effnet.cli.interruption import interrupted_status, interruptible, was_interrupted
from keras_effnet.errors import (
    UserError,
    VerificationError,
    first_line,
    printable,
    tensorflow_reason,
    unknown,
    unreadable_input,
)
from keras_effnet.system.files import cannot_write, disk_full, forbidden

EXIT_USER, EXIT_VERIFICATION, EXIT_READER_GONE = 2, 3, 141
_INTERRUPTED = "interrupted."
_SURPLUS = "Got unexpected extra"  # click, of arguments

# One-line help texts, kept here so that --help imports no command.
COMMANDS = {
    "quickstart": "Train on handwritten digits, export at five precisions, compare. Takes three minutes.",
    "info": "List the networks, or show the scaling, cost and blocks of one.",
    "pack": "Write images as TFRecord shards, optionally downscaled to the training size.",
    "train": "Train a network on a folder of images or on the embedded digits.",
    "launch": "Start data-parallel training processes on one or several hosts.",
    "eval": "Evaluate a .keras or .tflite file on labelled images, by its task.",
    "predict": "Predict images: classes, labels, values, embeddings or masks.",
    "explain": "Draw Grad-CAM heat maps: the image regions that support a class.",
    "export": "Write .tflite files, each run and compared with the model.",
    "serve": "Try .tflite files in the browser, on images and the camera.",
    "benchmark": "Time .tflite files on this machine.",
    "check-data": "Find unreadable files, duplicates, leaks and class imbalance in a dataset.",
    "search": "Search the compound scaling constants alpha, beta and gamma for a baseline.",
    "study": "Train a family of networks under one protocol; compare accuracy, time and memory.",
    "recommend": "Recommend a network for a budget of MACs, milliseconds or megabytes, from a study.",
    "checks": "Check that this machine can train and export.",
}


class LazyGroup(click.Group):
    """Click group that imports a command module when the command is used."""

    def list_commands(self, ctx):
        return list(COMMANDS)

    def get_command(self, ctx, name):
        if name not in COMMANDS:
            return None
        from keras_effnet.cli.parameter_types import refuse_empty_text  # late: --help needs none of its imports

        command = importlib.import_module(f"keras_effnet.cli.commands.{name.replace('-', '_')}").command
        command.help = command.help or COMMANDS[name]  # `python -OO` drops docstrings
        refuse_empty_text(command)
        return command

    def resolve_command(self, ctx, args):
        if args and args[0] not in COMMANDS and not ctx.resilient_parsing:  # which completion does
            raise UserError(unknown("command", args[0], COMMANDS))
        return super().resolve_command(ctx, args)

    def invoke(self, ctx):
        try:
            result = super().invoke(ctx)
            if sys.stdout is not None:
                sys.stdout.flush()  # a full disk or a reader that has gone may be noticed only here
            return result
        except BrokenPipeError:  # click exits with status 1
            _reader_gone()

    def format_commands(self, ctx, formatter):
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


_HELP = "EfficientNet in Keras, from compound scaling to a verified model on a phone."


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]}, help=_HELP)
@click.version_option(package_name="keras-effnet", prog_name="keras-effnet")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def cli(debug: bool) -> None:
    """Options of all commands; `main` reads `--debug`."""


def _fail(message: str, status: int) -> NoReturn:
    """Print an error on one line, whatever characters a name in it holds, and exit."""
    click.echo(f"error: {printable(message)}", err=True)
    sys.exit(status)


def usage_error(error: click.ClickException) -> str:
    """Message of click on one line; that of missing and surplus arguments with the usage of the command."""
    message = " ".join(error.format_message().split())
    missing, surplus = isinstance(error, click.MissingParameter), message.startswith(_SURPLUS)
    if not (missing or surplus) or not isinstance(error, click.UsageError) or error.ctx is None:
        return message
    usage = " ".join(error.ctx.get_usage().split())
    if surplus:
        message = f"Too many arguments: {message.partition('(')[2].removesuffix(')')}."
    return f"{message} {usage}"


def tolerate_any_character() -> None:
    """Print characters that the terminal's encoding lacks as escapes instead of failing."""
    if getattr(sys.stdout, "errors", None) == "strict" and hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")


def _reader_gone() -> NoReturn:
    """Exit as a shell reports SIGPIPE: `| head` has closed stdout, which Python would flush once more at exit."""
    with suppress(AttributeError, OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(EXIT_READER_GONE)


def external_cause(error: Exception) -> str | None:
    """One line about an error whose cause lies outside of the program: a path, a damaged shard."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename or 'A file'}: {error.strerror.lower()}. Check the path and its permissions."
    if isinstance(error, ValueError) and "embedded null" in str(error):
        return "a path holds a zero byte, which no file name can."
    if type(error).__name__ == "DataLossError":  # of TensorFlow, which may not be imported here
        damage = tensorflow_reason(error)
        return f"a TFRecord shard is damaged ({damage}): copy the folder again, or run keras-effnet pack again."
    if reason := unreadable_input(error):
        return f"an image changed or vanished while it was used ({reason}). Restore it and run again."
    return None


def main(args: list[str] | None = None) -> None:
    """Run the command line.

    Exit status: 0 success; 1 unexpected error; 2 invalid input, explained in one line; 3 failed verification;
    130 interrupted, 143 by SIGTERM; 141 the reader of stdout has closed it.

    Args:
        args: Command line arguments without the program name; `sys.argv` by default.
    """
    args = sys.argv[1:] if args is None else args
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # as stderr: file names need not be valid text
    debug = "--debug" in args
    args = [arg for arg in args if arg != "--debug"]  # accepted before and after the command
    tolerate_any_character()
    try:
        with interruptible():
            # In non-standalone mode click returns the status of `Exit` instead of raising it.
            status = cli.main(args, prog_name="keras-effnet", standalone_mode=False)
        if status:
            sys.exit(status)
    except click.exceptions.NoArgsIsHelpError as help_text:
        click.echo(help_text.format_message())
    except (click.Abort, KeyboardInterrupt):
        _fail(_INTERRUPTED, interrupted_status())
    except click.ClickException as error:
        _fail(usage_error(error), EXIT_USER)
    except (UserError, VerificationError) as error:
        if debug:
            raise
        _fail(str(error), EXIT_USER if isinstance(error, UserError) else EXIT_VERIFICATION)
    except Exception as error:
        if debug:
            raise
        if was_interrupted():  # a C module that is being loaded turns it into an ImportError
            _fail(_INTERRUPTED, interrupted_status())
        if disk_full(error):
            _fail(str(cannot_write(getattr(error, "filename", None) or "a file or the output", error)), EXIT_USER)
        if isinstance(error, OSError) and forbidden(error):
            where = f"{error.filename}: {error.strerror}"
            _fail(f"{where}. Change its permissions, or use another folder.", EXIT_USER)
        if cause := external_cause(error):
            _fail(cause, EXIT_USER)
        _fail(f"unexpected {type(error).__name__}: {first_line(error)} (--debug shows the traceback)", 1)
