"""Where a connection string that a stranger wrote leads: only addresses of other machines, and only those checked."""

from __future__ import annotations

import socket
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network
from typing import TYPE_CHECKING, Any

from stackctl.core.errors import ConfigError, ServiceError

if TYPE_CHECKING:
    from stackctl.postgres.libpq import Parameters

# Beside what Python's ipaddress calls loopback, link-local, unspecified and multicast: "this network", broadcast, and
# where AWS keeps the metadata of a machine in IPv6.
_LOCAL = tuple(map(ip_network, ("0.0.0.0/8", "255.255.255.255/32", "fd00:ec2::/64")))
# RFC 4291 (compatible), RFC 2765 (translated), RFC 6052 and RFC 8215 (translators): IPv4 in the last 32 bits.
_WITH_IPV4 = tuple(map(IPv6Network, ("::/96", "::ffff:0:0:0/96", "64:ff9b::/96", "64:ff9b:1::/48")))


def pin_addresses(parameters: Parameters, what: str) -> Parameters:
    """The parameters with `hostaddr` filled in: the names are resolved once, here, and what they gave is checked.

    So a name that leads elsewhere the next time it is asked for (DNS rebinding) leads nowhere. `what` names the
    database in messages. Raises ConfigError `local-address`, and ServiceError `unreachable` for an unknown name.
    """
    hosts = _split(parameters.get("host"))
    given = _split(parameters.get("hostaddr"))
    ports = _split(parameters.get("port")) or [""]
    count = max(len(hosts), len(given), 1)
    if (hosts and given and len(hosts) != len(given)) or len(ports) not in (1, count):
        raise _refused(what, "its connection string has another number of hosts than of addresses or ports")
    found: list[tuple[str, str, str]] = []
    for place in range(count):
        host = hosts[place] if hosts else ""  # none at all is libpq's own socket
        address = given[place] if given else ""
        if not address and (not host or host[0] in "/@"):
            raise _refused(what, "its connection string names a socket of this machine")
        for resolved in _resolve(address or host, what, numeric=bool(address)):
            if _is_local(resolved):
                shown = f"{host or address} ({resolved})" if resolved != host else host
                raise _refused(what, f"{shown} is an address of this machine or of its link")
            found.append((host, str(resolved), ports[place if len(ports) > 1 else 0]))
    pinned: dict[str, Any] = parameters | {"hostaddr": ",".join(address for _, address, _ in found)}
    for name, values in (("host", [host for host, _, _ in found]), ("port", [port for _, _, port in found])):
        if any(values):
            pinned[name] = ",".join(values)
    return pinned


def _split(value: Any) -> list[str]:
    return str(value).split(",") if value not in (None, "") else []


def _resolve(name: str, what: str, *, numeric: bool) -> list[str]:
    flags = socket.AI_NUMERICHOST if numeric else 0
    try:
        found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM, flags=flags)
    except (OSError, UnicodeError) as error:
        raise ServiceError(
            f"{what}: the address of {name} can't be found: {getattr(error, 'strerror', None) or error}",
            code="unreachable",
            hint="check the host name",
        ) from error
    return list(dict.fromkeys(str(one[4][0]) for one in found))


def _is_local(text: str) -> bool:
    """Whether the address is this machine's or its link's, in whatever form: also one of IPv4 inside one of IPv6."""
    address: IPv4Address | IPv6Address = ip_address(text.partition("%")[0])
    if isinstance(address, IPv6Address):
        address = _inner_address(address) or address
    reserved = address.is_loopback or address.is_link_local or address.is_unspecified or address.is_multicast
    return (
        reserved
        or any(address in network for network in _LOCAL if network.version == address.version)
        or _is_own(address)
    )


def _inner_address(address: IPv6Address) -> IPv4Address | None:
    """Of IPv4-mapped, -compatible and -translated addresses, 6to4, Teredo and the translators' prefixes."""
    number = int(address)
    if number > 1 and any(address in network for network in _WITH_IPV4):
        return IPv4Address(number & 0xFFFF_FFFF)
    return address.ipv4_mapped or address.sixtofour or (address.teredo[1] if address.teredo else None)


def _is_own(address: IPv4Address | IPv6Address) -> bool:
    """Whether it belongs to one of this machine's interfaces: only such an address can be bound."""
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((str(address), 0))
        except OSError:
            return False
        return True


def _refused(what: str, problem: str) -> ConfigError:
    return ConfigError(
        f"{what}: {problem}",
        code="local-address",
        hint="name a host that is reached over the network; if a tenancy's database is here, the operator sets"
        " external_databases_local: allow in stackctl.yaml",
    )
