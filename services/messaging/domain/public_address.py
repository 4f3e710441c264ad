"""Which addresses lie on the public internet."""

import ipaddress
from typing import Final

_GLOBAL_UNICAST: Final = ipaddress.IPv6Network("2000::/3")
_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")  # RFC 6052


def is_public(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    """Whether an address is reached over the public internet, and nothing else.

    An IPv6 address that stands for an IPv4 one by NAT64 is judged by that.
    """
    if isinstance(address, ipaddress.IPv6Address):
        if address in _NAT64:
            return is_public(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
        # Nothing but ordinary addresses: no mapped or link-local ones, no tunnels.
        if address not in _GLOBAL_UNICAST or address.sixtofour or address.teredo:
            return False
    return address.is_global and not address.is_multicast and not address.is_reserved
