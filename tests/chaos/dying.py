"""How a process dies at a step: a step is armed by a file of its name in the folder STEPS."""

import functools
import os
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

_FOLDER = Path(os.environ.get("STEPS", "."))


def is_armed(step: str) -> bool:
    """Whether somebody is to die at a step."""
    return (_FOLDER / step).exists()


def reached(step: str) -> None:
    """End as if killed with -9, if this is the first process to get to a step that is armed."""
    try:
        (_FOLDER / step).unlink()
    except FileNotFoundError:
        return
    os.kill(os.getpid(), signal.SIGKILL)


def wrap(owner: Any, name: str, wrapper: Callable[..., Any]) -> None:
    """Have a function, or a method, called through another."""
    setattr(owner, name, functools.wraps(getattr(owner, name))(wrapper))


def around(owner: Any, name: str, before: str = "", after: str = "") -> None:
    """Steps before and after an asynchronous method; not after one that found nothing to do."""
    stepping(owner, name, lambda *_: before, lambda result, *_: "" if result in ((), []) else after)


def stepping(
    owner: Any,
    name: str,
    before: Callable[..., str] = lambda *_: "",
    after: Callable[..., str] = lambda *_: "",
) -> None:
    """Steps that depend on what an asynchronous method was given, and found; "" is none.

    Args:
        before: Of the method's arguments.
        after: Of its result and its arguments.
    """
    original: Callable[..., Awaitable[Any]] = getattr(owner, name)

    async def stepped(*arguments: Any, **named: Any) -> Any:
        if step := before(*arguments):
            reached(step)
        result = await original(*arguments, **named)
        if step := after(result, *arguments):
            reached(step)
        return result

    wrap(owner, name, stepped)
