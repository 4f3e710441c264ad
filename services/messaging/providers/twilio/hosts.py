"""Which addresses are Twilio's own."""

from yarl import URL


class TwilioHosts:
    """Knows the addresses that may be shown the account's credentials.

    Args:
        base_url: Of Twilio's REST API; the sandbox's, where that stands in for it.
    """

    def __init__(self, base_url: str) -> None:
        base = URL(base_url)
        self._origin = (base.scheme, base.host, base.port)

    def own(self, url: URL) -> bool:
        """Whether an address is one of Twilio's."""
        if url.user is not None or url.password is not None:
            return False
        host = (url.host or "").lower()
        if (url.scheme, host, url.port) == self._origin:
            return True
        return url.scheme == "https" and url.port == 443 and host.endswith(".twilio.com")
