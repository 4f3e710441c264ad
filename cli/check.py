"""`switchboard check`: what the configuration of the whole system has and lacks."""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from cli.catalogue import EVERYTHING, SERVICES, group_rank
from cli.data_folder import DataFolder
from cli.environment import load_environment
from cli.run_settings import RunSettings
from cli.run_variables import run_variables
from services.common.lifecycle import EXIT_CONFIGURATION
from services.common.settings import ConfigurationError, Problem, Settings, field_group

BROUGHT = "brought by make run"
"""The state of what only services that run by themselves lack."""


@dataclass
class Variable:
    """One variable as every part that reads it sees it.

    Attributes:
        state: "set", "default", "missing" or "malformed"; or `BROUGHT`.
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
                variable.problem = variable.problem or problem
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
    states = max(len(variable.state) for variable in variables)
    groups = sorted({variable.group for variable in variables}, key=group_rank)
    lines: list[str] = []
    for group in groups:
        lines.append(f"\n{group}")
        in_group = [variable for variable in variables if variable.group == group]
        for variable in sorted(in_group, key=lambda variable: variable.problem is None):
            lines += _lines(variable, width, states)
    return "\n".join(lines)


def _lines(variable: Variable, width: int, states: int) -> list[str]:
    row = f"  {variable.name:<{width}}  {variable.state:<{states}}  {', '.join(variable.read_by)}"
    if not variable.problem:
        return [row]
    return [
        row,
        f"      {variable.problem.problem}",
        f"      for: {variable.problem.purpose}",
        f"      example: {variable.name}={variable.problem.example}",
    ]


def check(env_file: Path | None, *, services_alone: bool = False) -> int:
    """Print the report; 0 when `make run`, or else the services, may start, else 78.

    Args:
        services_alone: Leave out what only `make run` reads, and what it brings.
    """
    try:
        environment = load_environment(env_file, sandbox_allowed=False)
    except FileNotFoundError as error:
        print(f"Can't check: {error}.")
        return EXIT_CONFIGURATION
    source = f"{environment.file} and the environment" if environment.file else "the environment"
    services = inspect_variables(SERVICES, environment.variables)
    alone = [variable.name for variable in services if variable.problem]
    together = [] if services_alone else _wrong_for_run(environment.variables)
    shown = services
    if not services_alone:
        shown = inspect_variables(EVERYTHING, environment.variables)
        for variable in shown:
            if variable.state == "missing" and variable.name not in together:
                variable.state, variable.problem = BROUGHT, None
    print(f"Configuration from {source}:")
    print(format_variables(shown))
    if unread := environment.unread():
        print(f"\n{unread}")
    if services_alone:
        print(f"\nready: {_verdict(alone)}")
        return EXIT_CONFIGURATION if alone else 0
    print(f"\nready for make run: {_verdict(together)}")
    print(f"ready to run services by themselves: {_verdict(alone)}")
    if together and environment.file is None and find_spec("sandbox"):
        print("Without a .env `make run` starts the sandbox, which needs none of them.")
    return EXIT_CONFIGURATION if together else 0


def _wrong_for_run(configured: Mapping[str, str]) -> list[str]:
    """What keeps `make run` from starting, which brings some variables and decides others."""
    try:
        settings = RunSettings.load(configured)
    except ConfigurationError:
        settings = RunSettings()  # What is wrong with its own is found below.
    folder = DataFolder(settings.switchboard_data_dir)
    given = run_variables(configured, settings, folder.path, lambda name: name).variables
    return [variable.name for variable in inspect_variables(EVERYTHING, given) if variable.problem]


def _verdict(wrong: list[str]) -> str:
    return f"no ({', '.join(wrong)})" if wrong else "yes"
