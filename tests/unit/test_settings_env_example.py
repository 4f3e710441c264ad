"""`.env.example` and the settings classes agree."""

import re
from pathlib import Path

import pytest

from cli.catalogue import EVERYTHING
from cli.env_example import env_example
from services.common.settings import Settings

EXAMPLE = Path(__file__).parents[2] / ".env.example"
VARIABLES = {name.upper() for settings in EVERYTHING.values() for name in settings.model_fields}
REQUIRED = {
    name.upper()
    for settings in EVERYTHING.values()
    for name, field in settings.model_fields.items()
    if field.is_required()
    or (isinstance(field.json_schema_extra, dict) and "required_where" in field.json_schema_extra)
}


def test_the_file_is_what_the_command_prints() -> None:
    """A changed settings class must be followed by `switchboard env-example > .env.example`."""
    assert EXAMPLE.read_text() == env_example()


def test_every_variable_is_in_the_file_and_every_line_is_a_variable() -> None:
    """Nothing that can be set is left out, and nothing stands there that no part reads."""
    names = re.findall(r"^#?([A-Z][A-Z0-9_]*)=", EXAMPLE.read_text(), re.MULTILINE)
    assert sorted(names) == sorted(VARIABLES)


def test_only_required_variables_stand_uncommented_and_none_has_a_value() -> None:
    """A copy of the file sets nothing by accident, least of all a secret."""
    uncommented = re.findall(r"^([A-Z][A-Z0-9_]*)=(.*)$", EXAMPLE.read_text(), re.MULTILINE)
    assert dict(uncommented) == dict.fromkeys(REQUIRED, "")


@pytest.mark.parametrize("part", EVERYTHING)
def test_every_example_is_a_value_that_is_accepted(part: str) -> None:
    """Who copies the examples gets a configuration that loads."""
    settings = EVERYTHING[part]
    settings.load(_examples(settings))


@pytest.mark.parametrize("part", EVERYTHING)
def test_every_variable_has_a_purpose_and_an_example(part: str) -> None:
    """The report can say for each variable what it is for and how to set it."""
    fields = EVERYTHING[part].model_fields
    assert [name for name, field in fields.items() if not field.description] == []
    assert [name for name, field in fields.items() if not field.examples] == []


def _examples(settings: type[Settings]) -> dict[str, str]:
    return {
        name.upper(): str((field.examples or [""])[0])
        for name, field in settings.model_fields.items()
    }
