"""`switchboard check`: what the configuration of the whole system has and lacks."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cli.catalogue import EVERYTHING, SERVICES, group_rank
from cli.environment import load_environment
from services.common.lifecycle import EXIT_CONFIGURATION
from services.common.settings import ConfigurationError, Problem, Settings, field_group

RUN_SUPPLIES = ("DATABASE_URL", "GRPC_TOKEN", "NATS_URL")
"""Required by the services, and given to them by `switchboard run`."""


@dataclass
class Variable:
    """One variable as every part that reads it sees it.

    Attributes:
        state: "set", "default", "missing" or "malformed".
        problem: Why it keeps a part from starting, else None.
    """

    name: str
    group: str
    state: str
    read_by: list[str]
    problem: Problem | None = None


def inspect_variables(
    parts: Mapping[str, type[Settings]], environ: Mapping[str, str]
) -> list[Variable]:
    """The state of every variable of `parts`, in the order of their classes."""
    variables: dict[str, Variable] = {}
    for part, settings in parts.items():
        problems = _problems(settings, environ)
        for field in settings.model_fields:
            name = field.upper()
            state = "set" if environ.get(name) else "default"
            variable = variables.setdefault(
                name, Variable(name, field_group(settings, field), state, [])
            )
            variable.read_by.append(part)
            if problem := problems.get(name):
                variable.problem = problem
                variable.state = "malformed" if state == "set" else "missing"
    return list(variables.values())


def _problems(settings: type[Settings], environ: Mapping[str, str]) -> dict[str, Problem]:
    try:
        settings.load(environ)
    except ConfigurationError as error:
        return {problem.variable: problem for problem in error.problems}
    return {}


def format_variables(variables: list[Variable]) -> str:
    """The report, group by group, the core first. It holds no values."""
    width = max(len(variable.name) for variable in variables)
    groups = sorted({variable.group for variable in variables}, key=group_rank)
    lines: list[str] = []
    for group in groups:
        lines.append(f"\n{group}")
        in_group = [variable for variable in variables if variable.group == group]
        for variable in sorted(in_group, key=lambda variable: variable.problem is None):
            lines += _lines(variable, width)
    return "\n".join(lines)


def _lines(variable: Variable, width: int) -> list[str]:
    row = f"  {variable.name:<{width}}  {variable.state:<9}  {', '.join(variable.read_by)}"
    if not variable.problem:
        return [row]
    return [
        row,
        f"      {variable.problem.problem}",
        f"      for: {variable.problem.purpose}",
        f"      example: {variable.name}={variable.problem.example}",
    ]


def check(env_file: Path | None, *, services_alone: bool = False) -> int:
    """Print the report; 0 when everything may start, else 78.

    Args:
        services_alone: Leave out what only `make run` reads.
    """
    try:
        environment = load_environment(env_file, sandbox_allowed=False)
    except FileNotFoundError as error:
        print(f"Can't check: {error}.")
        return EXIT_CONFIGURATION
    variables = inspect_variables(SERVICES if services_alone else EVERYTHING, environment.variables)
    source = f"{environment.file} and the environment" if environment.file else "the environment"
    print(f"Configuration from {source}:")
    print(format_variables(variables))
    known = {name for variable in variables for name in (variable.name, f"{variable.name}_FILE")}
    if unread := [name for name in environment.names if name not in known]:
        print(f"\nIn {environment.file}, but no part reads it: {', '.join(unread)}")
    wrong = [variable.name for variable in variables if variable.problem]
    if wrong:
        print(f"\nready: no ({', '.join(wrong)})")
        if not services_alone and (supplied := [name for name in wrong if name in RUN_SUPPLIES]):
            print(f"`make run` brings its own {', '.join(supplied)}.")
        return EXIT_CONFIGURATION
    print("\nready: yes")
    return 0
