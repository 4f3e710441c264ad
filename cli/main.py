"""The command `switchboard`."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command and exit with its code."""
    args = _parser().parse_args(arguments)
    sys.exit(args.command(args))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="switchboard", description="Switchboard's commands.")
    commands = parser.add_subparsers(metavar="command", required=True)

    run = commands.add_parser("run", help="start everything on this machine; Ctrl-C stops it")
    _add_env_file(run)
    run.set_defaults(command=_run)

    check = commands.add_parser("check", help="report what the configuration lacks")
    _add_env_file(check)
    check.set_defaults(command=_check)

    say = commands.add_parser("say", help="write as a WhatsApp contact and watch the answer")
    say.add_argument("text", help="what the contact writes")
    say.add_argument(
        "--from", dest="contact", default="+972501234567", help="the contact's number in E.164"
    )
    say.add_argument(
        "--timeout", type=float, default=30.0, help="seconds to wait for the answer to be read"
    )
    _add_env_file(say)
    say.set_defaults(command=_say)

    example = commands.add_parser("env-example", help="print .env.example")
    example.set_defaults(command=_env_example)
    return parser


def _add_env_file(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--env-file", type=Path, help="file of variables instead of .env")


# Each command imports what it needs, so that the first line is printed without delay.


def _run(args: argparse.Namespace) -> int:
    from cli.run import run

    return run(args.env_file)


def _check(args: argparse.Namespace) -> int:
    from cli.check import check

    return check(args.env_file)


def _say(args: argparse.Namespace) -> int:
    from cli.say import say

    return say(args.text, contact=args.contact, timeout=args.timeout, env_file=args.env_file)


def _env_example(args: argparse.Namespace) -> int:
    from cli.env_example import env_example

    print(env_example(), end="")
    return 0
