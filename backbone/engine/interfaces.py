"""Network interfaces: which one leads to an address."""

from __future__ import annotations

import ipaddress
import socket
import struct
from pathlib import Path

# struct ifreq and the call that fills it with an interface's IPv4 address (netdevice(7)).
SIOCGIFADDR = 0x8915
# A port for the sake of routing; nothing is sent to it.
ANY_PORT = 9


def source_address(host: str) -> str:
    """Return this machine's own address on the way to a host, as the routes say; "" where there is none."""
    try:
        found = socket.getaddrinfo(host, ANY_PORT, type=socket.SOCK_DGRAM)
    except OSError:
        return ""
    for family, kind, protocol, _, address in found:
        try:
            with socket.socket(family, kind, protocol) as probe:
                probe.connect(address)
                return probe.getsockname()[0]
        except OSError:
            continue
    return ""


def is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address.partition("%")[0]).is_loopback
    except ValueError:
        return False


def interface_of(address: str) -> str | None:
    """Return the name of the interface that has an address; None where the system does not tell (it is Linux's way)."""
    try:
        wanted = ipaddress.ip_address(address.partition("%")[0])
        names = [name for _, name in socket.if_nameindex()]
    except (ValueError, OSError, AttributeError):
        return None
    if wanted.version == 6:
        return _with_ipv6(wanted)
    return next((name for name in names if _ipv4(name) == address), None)


def _ipv4(name: str) -> str | None:
    try:
        import fcntl

        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            request = struct.pack("256s", name.encode()[:15])
            return socket.inet_ntoa(fcntl.ioctl(probe.fileno(), SIOCGIFADDR, request)[20:24])
    except (ImportError, OSError):
        return None


def _with_ipv6(wanted: ipaddress.IPv6Address) -> str | None:
    try:
        lines = Path("/proc/net/if_inet6").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    fields = (line.split() for line in lines)
    return next((parts[5] for parts in fields if ipaddress.IPv6Address(int(parts[0], 16)) == wanted), None)
