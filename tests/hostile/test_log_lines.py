"""What strangers send into logs: it stays inside its own line, and is shown as what it is."""

import json
import subprocess
import sys

import pytest

from services.common.refusals import sender_of
from tests.support.attacks import Attacks

TEXTS = [
    '\n{"event": "webhook stored", "level": "info"}',
    '\r\n{"event": "webhook stored"}\r\n',
    '", "level": "critical", "event": "x',
    '\\", "level": "critical',
    "\x1b[2J\x1b[31mred\x1b]0;title\x07",
    "\x9b31mred",
    "\u202efdp.exe\u2066",
    "\ufeff\u200b\u2028\u2029\x85",
    "a\0b",
    "\ud800",
    "%s%n%(secret)s{0.__class__}${jndi:ldap://x}",
]
# Logs each text in every way there is.
SCRIPT = """
import json, logging, sys
import structlog
from services.common.logging import configure_logging
from services.common.settings import CommonSettings

configure_logging("test", CommonSettings.load({}))
log = structlog.get_logger("services.test")
for text in json.loads(sys.argv[1]):
    log.warning("refused", sender=text, more={text: [text]})
    logging.getLogger("a.library").warning("refused %s", text)
    logging.getLogger("a.library").warning(text)
    try:
        raise ValueError(text)
    except ValueError:
        log.exception("failed")
"""


def test_a_text_is_one_line_of_plain_json(attacks: Attacks) -> None:
    """Line ends, quotes, escapes of terminals and bidi end no line and forge none."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps(TEXTS)], capture_output=True, check=True
    )
    lines = done.stderr.splitlines()
    assert len(lines) == 4 * len(TEXTS)
    for line in lines:
        entry = json.loads(line)
        plain = line.isascii() and line.decode().isprintable()
        forged = entry["service"] != "test" or entry["level"] not in ("warning", "error")
        attacks.count("injection into logs", through=forged or not plain, evidence=line)


@pytest.mark.parametrize("text", TEXTS)
def test_a_sender_is_an_address_or_plain(text: str, attacks: Attacks) -> None:
    """A proxy may hand on what is no address; in text for people it must do no harm either."""
    shown = sender_of({"type": "http", "client": (text, 0)})
    attacks.count(
        "injection by a sender's name", through=not (shown.isascii() and shown.isprintable())
    )
