"""Looking at other processes (Linux)."""

from pathlib import Path


def is_running(pid: int) -> bool:
    """Whether a process exists and isn't a zombie that nobody has collected."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    # The name, in parentheses, may hold anything; the state follows it.
    return status.rpartition(")")[2].split()[0] != "Z"
