"""Structured logs on standard error. Bodies, phone numbers and secrets never go in."""

import logging
import sys

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from services.common.masking import Masking, first_line, format_exception, secrets_of
from services.common.settings import CommonSettings
from services.common.tracing import request_id

_OWN = ("services", "cli", "__main__")


def configure_logging(service: str, settings: CommonSettings) -> None:
    """Send structlog's and the standard library's records out in one format.

    Of libraries only warnings are shown, at whatever level: below it they tell what they handle.
    """

    def whose(logger: WrappedLogger, name: str, event: EventDict) -> EventDict:
        # Not bound to a context, which threads of others don't have.
        event["service"] = service
        if own_id := request_id():
            event["request_id"] = own_id
        return event

    shared: list[Processor] = [
        whose,
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
        structlog.processors.ExceptionRenderer(format_exception),
    ]
    renderer: Processor = (
        structlog.processors.JSONRenderer()
        if settings.log_format == "json"
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    level = logging.getLevelNamesMapping()[settings.log_level.upper()]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        # What is below the level costs nothing.
        wrapper_class=structlog.make_filtering_bound_logger(level),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler()
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, first_line],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                Masking(secrets_of(settings)),
                renderer,
            ],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(max(level, logging.WARNING))
    for name in _OWN:
        logging.getLogger(name).setLevel(level)
