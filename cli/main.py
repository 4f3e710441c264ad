"""The command `switchboard`."""

import argparse
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

_INTERRUPTED = 128 + 2
"""As shells put the end by SIGINT."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command and exit with its code."""
    args = _parser().parse_args(arguments)
    try:
        sys.exit(args.command(args))
    except KeyboardInterrupt:
        # Most of all while a command imports what it needs, before it has a say in signals.
        sys.exit(_INTERRUPTED)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="switchboard", description="Switchboard's commands.")
    commands = parser.add_subparsers(metavar="command", required=True)

    run = commands.add_parser("run", help="start everything on this machine; Ctrl-C stops it")
    _add_env_file(run)
    run.set_defaults(command=_run)

    check = commands.add_parser("check", help="report what the configuration lacks")
    check.add_argument(
        "--services",
        action="store_true",
        help="whether the services may start without `switchboard run`",
    )
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

    sandbox = commands.add_parser(
        "sandbox", help="pretend vendors for a stack of containers; `run` brings its own"
    )
    sandbox.add_argument("--settings", type=Path, required=True, help="the stack's variables")
    sandbox.add_argument("--lend", type=Path, required=True, help="where its parts read them")
    sandbox.add_argument("--webhook", required=True, help="origin of the edge")
    sandbox.add_argument("--health", required=True, help="origin of health")
    sandbox.add_argument("--grpc", required=True, help="host:port of messaging")
    sandbox.set_defaults(command=_sandbox)

    _add_call(commands)
    _add_baileys(commands)
    _add_dead(commands)

    replay = commands.add_parser("replay", help="store again what the journal holds")
    replay.add_argument(
        "--since", required=True, help="from when: a time, or a duration ago such as 36h or 7d"
    )
    replay.add_argument("--until", help="up to when, in the same forms; else to the end")
    replay.add_argument(
        "--kind", choices=("message", "status", "call", "act"), help="only events of this kind"
    )
    replay.add_argument(
        "--backup",
        action="store_true",
        help="the database is a backup: what it holds as unsent may have been sent since",
    )
    replay.add_argument("--database-url", help="another database than messaging's")
    _add_env_file(replay)
    replay.set_defaults(command=_replay)

    example = commands.add_parser("env-example", help="print .env.example")
    example.set_defaults(command=_env_example)
    return parser


def _add_call(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    call = commands.add_parser("call", help="call as a pretend caller and listen to the answers")
    call.add_argument(
        "text", nargs="?", default="", help="what the caller says, turn by turn, separated by |"
    )
    call.add_argument("--wav", type=Path, help="a recording for the first turn: WAV, 16-bit PCM")
    call.add_argument(
        "--from", dest="caller", default="+972501234567", help="the caller's number in E.164"
    )
    call.add_argument(
        "--speed", type=float, default=1.0, help="how much faster than real speech goes by (1)"
    )
    call.add_argument(
        "--timeout", type=float, default=300.0, help="seconds to wait for the end of the call"
    )
    _add_env_file(call)
    call.set_defaults(command=_call)


def _add_baileys(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    baileys = commands.add_parser("baileys", help="the session of WhatsApp Web")
    actions = baileys.add_subparsers(metavar="action", required=True)
    pair = actions.add_parser("pair", help="show the code to scan until the phone has linked it")
    pair.add_argument("--queue", type=Path, help="the queue's folder, else BAILEYS_QUEUE_DIR")
    pair.add_argument(
        "--timeout", type=float, default=300.0, help="seconds to wait for the phone (300)"
    )
    _add_env_file(pair)
    pair.set_defaults(command=_baileys_pair)


def _add_dead(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    dead = commands.add_parser("dead", help="events that could not be processed")
    actions = dead.add_subparsers(metavar="action", required=True)

    listing = actions.add_parser("list", help="list the newest letters, the newest last")
    listing.add_argument("--limit", type=_positive, default=50, help="at most so many (50)")
    _add_reason(listing)
    listing.set_defaults(command=_dead_list)

    show = actions.add_parser("show", help="print one letter, with what the contact wrote")
    show.add_argument("number", type=_positive, help="its number in the list")
    show.add_argument("--raw", action="store_true", help="the data alone, byte by byte")
    show.set_defaults(command=_dead_show)

    replay = actions.add_parser("replay", help="put letters back into the journal")
    _add_letters(replay)
    replay.set_defaults(command=_dead_replay)

    drop = actions.add_parser("drop", help="remove letters for good")
    _add_letters(drop)
    drop.add_argument("--yes", action="store_true", help="don't ask")
    drop.set_defaults(command=_dead_drop)

    for action in (listing, show, replay, drop):
        _add_env_file(action)


def _add_letters(parser: argparse.ArgumentParser) -> None:
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument(
        "numbers", type=_positive, nargs="*", default=[], help="their numbers in the list"
    )
    which.add_argument("--all", action="store_true", help="all there are, or those of --reason")
    _add_reason(parser)


def _letters_ok(args: argparse.Namespace) -> bool:
    if args.numbers and args.reason is not None:
        print("--reason goes with --all, not with numbers.", file=sys.stderr)
        return False
    return True


def _add_reason(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--reason", help="only letters whose reason holds this text")


def _positive(text: str) -> int:
    number = int(text) if text.isascii() and text.isdigit() else 0
    if not number:
        raise argparse.ArgumentTypeError(f"{text!r} is no number above 0")
    return number


def _add_env_file(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--env-file", type=Path, help="file of variables instead of .env")


# Each command imports what it needs, so that the first line is printed without delay.


def _run(args: argparse.Namespace) -> int:
    from cli.run import run

    return run(args.env_file)


def _check(args: argparse.Namespace) -> int:
    from cli.check import check

    return check(args.env_file, services_alone=args.services)


def _say(args: argparse.Namespace) -> int:
    from cli.say import say

    return say(args.text, contact=args.contact, timeout=args.timeout, env_file=args.env_file)


def _call(args: argparse.Namespace) -> int:
    from cli.call import call

    return call(
        args.text,
        wav=args.wav,
        caller=args.caller,
        speed=args.speed,
        timeout=args.timeout,
        env_file=args.env_file,
    )


def _sandbox(args: argparse.Namespace) -> int:
    from cli.sandbox import serve_sandbox

    return serve_sandbox(
        settings=args.settings,
        lend=args.lend,
        webhook=args.webhook,
        health=args.health,
        grpc=args.grpc,
    )


def _baileys_pair(args: argparse.Namespace) -> int:
    from cli.baileys import pair

    return pair(queue=args.queue, timeout=args.timeout, env_file=args.env_file)


def _dead_list(args: argparse.Namespace) -> int:
    from cli.dead import list_letters

    return list_letters(reason=args.reason, limit=args.limit, env_file=args.env_file)


def _dead_show(args: argparse.Namespace) -> int:
    from cli.dead import show_letter

    return show_letter(args.number, raw=args.raw, env_file=args.env_file)


def _dead_replay(args: argparse.Namespace) -> int:
    from cli.dead import replay_letters

    if not _letters_ok(args):
        return 2
    return replay_letters(args.numbers, every=args.all, reason=args.reason, env_file=args.env_file)


def _dead_drop(args: argparse.Namespace) -> int:
    from cli.dead import drop_letters

    if not _letters_ok(args):
        return 2
    return drop_letters(
        args.numbers, every=args.all, reason=args.reason, yes=args.yes, env_file=args.env_file
    )


def _replay(args: argparse.Namespace) -> int:
    from cli.replay import moment, replay

    now = datetime.now(UTC)
    try:
        since = moment(args.since, now)
        until = moment(args.until, now) if args.until else None
    except ValueError as error:
        print(f"{error}.", file=sys.stderr)
        return 2
    return replay(
        since=since,
        until=until,
        kind=args.kind,
        backup=args.backup,
        database_url=args.database_url,
        env_file=args.env_file,
    )


def _env_example(args: argparse.Namespace) -> int:
    from cli.env_example import env_example

    print(env_example(), end="")
    return 0
