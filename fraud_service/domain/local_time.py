"""The local time of a payment: the offset that its producer gave, else the zone of its country, else a default zone.

Rules of zones come from the `tzdata` package alone. It is pinned, so that every machine computes the same features.
"""

from __future__ import annotations

from datetime import timedelta
from functools import cache, lru_cache
from importlib.resources import files
from typing import TYPE_CHECKING, Final
from zoneinfo import ZoneInfo

import msgspec

from fraud_service.domain.codec import LATEST
from fraud_service.domain.countries import alpha2
from fraud_service.domain.time import DAY, EPOCH, MINUTE

if TYPE_CHECKING:
    from fraud_service.domain.events import Transaction

UTC_ZONE: Final = "UTC"
# Since 2000, clocks have changed only at full quarters of an hour; in five places until 2022, a minute after one. There
# the new time takes effect at the next quarter.
QUARTER: Final = 15 * MINUTE
# The package lists zones from west to east or by size. Where the first is not that of most people, this is the zone.
MAIN_ZONES: Final = {
    "AU": "Australia/Sydney",
    "BR": "America/Sao_Paulo",
    "CA": "America/Toronto",
    "FM": "Pacific/Pohnpei",
    "RU": "Europe/Moscow",
    "UA": "Europe/Kyiv",
    "XK": "Europe/Belgrade",
}


@lru_cache(maxsize=1)
def zone_names() -> frozenset[str]:
    """Return the names of all zones."""
    return frozenset(files("tzdata").joinpath("zones").read_text(encoding="utf-8").split())


@lru_cache(maxsize=1)
def zones_by_country() -> dict[str, list[str]]:
    """Return the zones of each country, by its code of two letters. The first is the one that payments take."""
    found: dict[str, list[str]] = {country: [main] for country, main in MAIN_ZONES.items()}
    for line in files("tzdata").joinpath("zoneinfo/zone.tab").read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            country, _, name, *_ = line.split("\t")
            zones = found.setdefault(country, [])
            if name not in zones:
                zones.append(name)
    return found


@cache  # there are 600
def zone(name: str) -> ZoneInfo:
    """Return a zone. Raises `KeyError` for an unknown name."""
    if name not in zone_names():
        raise KeyError(name)
    with files("tzdata").joinpath(f"zoneinfo/{name}").open("rb") as file:
        return ZoneInfo.from_file(file, name)


@lru_cache(maxsize=4096)  # payments come in order, so a few quarters of each zone recur
def _offset_min(name: str, quarter: int) -> int:
    moment = EPOCH + timedelta(milliseconds=min(quarter * QUARTER, LATEST - DAY))  # Python has no year 10000
    offset = moment.astimezone(zone(name)).utcoffset()
    return 0 if offset is None else offset // timedelta(minutes=1)


def offset_min(name: str, timestamp: int) -> int:
    """Return by how many minutes the clocks of a zone are ahead of UTC at an event time.

    >>> offset_min("Europe/Berlin", 1_767_225_600_000), offset_min("Asia/Kathmandu", 1_767_225_600_000)
    (60, 345)
    """
    return _offset_min(name, timestamp // QUARTER)


@lru_cache(maxsize=4096)
def zone_of(country: str | None, default: str) -> str:
    """Return the name of a country's zone, or the default for an unknown country.

    >>> zone_of("JP", "UTC"), zone_of("USA", "UTC"), zone_of(None, "Europe/Paris")
    ('Asia/Tokyo', 'America/New_York', 'Europe/Paris')
    """
    zones = zones_by_country().get(alpha2(country) or "")
    return zones[0] if zones else default


def with_local_time(transaction: Transaction, default: str) -> Transaction:
    """Return the transaction with its `utc_offset_min`. `default` is the zone where the country has none."""
    if transaction.utc_offset_min is not None:
        return transaction
    return at_offset(transaction, offset_min(zone_of(transaction.country, default), transaction.timestamp))


def at_offset(transaction: Transaction, minutes: int) -> Transaction:
    """Return the transaction with this `utc_offset_min`, unless it has its own."""
    if transaction.utc_offset_min is not None:
        return transaction
    return msgspec.structs.replace(transaction, utc_offset_min=minutes)


def clock(timestamp: int, offset: int) -> str:
    """Return the time of the clock with its offset.

    >>> clock(1_767_225_600_000, 60), clock(1_767_225_600_000, -210), clock(1_767_225_600_000, 0)
    ('01:00 UTC+01:00', '20:30 UTC-03:30', '00:00 UTC')
    """
    minutes = (timestamp // MINUTE + offset) % (24 * 60)
    hours, rest = divmod(abs(offset), 60)
    ahead = f"{'-' if offset < 0 else '+'}{hours:02}:{rest:02}" if offset else ""
    return f"{minutes // 60:02}:{minutes % 60:02} UTC{ahead}"
