"""The command line. Each command lives in `commands/` and is imported only when it runs, TensorFlow later still."""

from __future__ import annotations

import importlib
import os
import sys

import click

from keras_effnet.errors import UserError, VerificationError, first_line, unknown

EXIT_USER, EXIT_VERIFICATION, EXIT_INTERRUPTED = 2, 3, 130

# One line each, here, so that --help imports no command.
COMMANDS = {
    "quickstart": "Train a small network on handwritten digits, export it four ways, compare. Three minutes.",
    "info": "List the networks, or show one: scaling, cost, blocks.",
    "pack": "Write images as TFRecord shards, shrunk to what training needs.",
    "train": "Train a network on a folder of images or on the embedded digits.",
    "launch": "Run a command in several processes, on one host or several, that train together.",
    "eval": "Measure the accuracy of a .keras or .tflite file.",
    "predict": "Name what is on images.",
    "explain": "Show where in images a network finds a class: Grad-CAM.",
    "export": "Write .tflite files, each one run and compared with the model.",
    "benchmark": "Time .tflite files on this machine.",
    "check-data": "Look for broken files, copies, leaks and lopsided classes in a data set.",
    "search": "Search the constants of compound scaling, alpha, beta and gamma, for a baseline.",
    "study": "Train a family of networks by one protocol and see what size buys: accuracy, time, memory.",
    "recommend": "Say what phi a budget of MACs, milliseconds or megabytes buys, by a study's results.",
    "checks": "See whether this machine has what the package needs.",
}


class LazyGroup(click.Group):
    """Knows its commands by name and imports the one that is called."""

    def list_commands(self, ctx):
        return list(COMMANDS)

    def get_command(self, ctx, name):
        if name not in COMMANDS:
            return None
        return importlib.import_module(f"keras_effnet.cli.commands.{name.replace('-', '_')}").command

    def resolve_command(self, ctx, args):
        if args and args[0] not in COMMANDS:
            raise UserError(unknown("command", args[0], COMMANDS))
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx, formatter):
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="keras-effnet", prog_name="keras-effnet")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def cli(debug: bool) -> None:
    """EfficientNet in Keras, from compound scaling to a proven model on a phone."""


def _fail(message: str, status: int) -> None:
    click.echo(f"error: {message}", err=True)
    sys.exit(status)


def main(args: list[str] | None = None) -> None:
    """Runs the command line.

    Exit status: 0 done; 1 unexpected error; 2 wrong input, named in one line; 3 a file failed its verification;
    130 interrupted.
    """
    args = sys.argv[1:] if args is None else args
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    debug = "--debug" in args
    args = [arg for arg in args if arg != "--debug"]  # so that it works before and after the command
    try:
        # Not standalone, click returns the status of `Exit` in place of raising it.
        if status := cli.main(args, prog_name="keras-effnet", standalone_mode=False):
            sys.exit(status)
    except click.exceptions.NoArgsIsHelpError as help_text:
        click.echo(help_text.format_message())
    except (click.Abort, KeyboardInterrupt):
        _fail("interrupted. A training, study or search that had begun goes on with --resume RUN.", EXIT_INTERRUPTED)
    except click.ClickException as error:
        _fail(error.format_message(), EXIT_USER)
    except (UserError, VerificationError) as error:
        if debug:
            raise
        _fail(str(error), EXIT_USER if isinstance(error, UserError) else EXIT_VERIFICATION)
    except Exception as error:
        if debug:
            raise
        if "No space left" in str(error):  # h5py says so without an errno
            _fail("the disk is full. Whatever was written before is whole; free some space, then --resume.", EXIT_USER)
        _fail(f"unexpected {type(error).__name__}: {first_line(error)} (--debug shows the traceback)", 1)
