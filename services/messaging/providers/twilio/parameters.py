"""Parameters of Twilio's webhooks, in a form that can be stored."""

from collections.abc import Iterable

from switchboard.events.v1.events_pb2 import Parameter

from services.common.errors import InvalidInputError
from services.messaging.domain.text import storable

_MAX_KEY = 255


class Parameters:
    """Form or query parameters by name; of a repeated one the first counts."""

    def __init__(self, parameters: Iterable[Parameter]) -> None:
        self._values: dict[str, list[str]] = {}
        for parameter in parameters:
            self._values.setdefault(storable(parameter.name), []).append(storable(parameter.value))

    def first(self, *names: str) -> str:
        """The value of the first of these parameters that has one, else ""."""
        for name in names:
            for value in self._values.get(name, ()):
                if value:
                    return value
        return ""

    def required(self, *names: str, at_most: int) -> str:
        """Like `first`, for what nothing can be done without.

        Raises:
            InvalidInputError: It is missing, or longer than any that Twilio makes.
        """
        value = self.first(*names)
        if not value:
            raise InvalidInputError(names[0], "is missing")
        if len(value) > at_most:
            raise InvalidInputError(names[0], f"is longer than {at_most} characters")
        return value

    def payload(self) -> dict[str, object]:
        """Everything as it came: a text, or a list of them where a name is repeated."""
        return {
            name: values[0] if len(values) == 1 else values for name, values in self._values.items()
        }


def event_key(key: str) -> str:
    """An event's natural key as it is stored.

    Raises:
        InvalidInputError: It is longer than any of ours.
    """
    if len(key) > _MAX_KEY:
        raise InvalidInputError("ce-id", f"is longer than {_MAX_KEY} characters")
    return storable(key)
