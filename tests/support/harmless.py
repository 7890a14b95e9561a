"""Harmless values of many kinds, and how often the guard mistakes them for card data."""

from __future__ import annotations

import base64
import json
import random
import string
import uuid
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from fraud_service.security.card_data import find_card_data

if TYPE_CHECKING:
    from collections.abc import Callable

    Kind = Callable[[random.Random], object]

BASE62: Final = string.ascii_letters + string.digits
SINCE: Final = datetime(2020, 1, 1, tzinfo=UTC)
COUNTRIES: Final = (
    "1",
    "7",
    "33",
    "34",
    "36",
    "39",
    "44",
    "49",
    "52",
    "55",
    "61",
    "62",
    "81",
    "86",
    "91",
    "380",
    "420",
)


def _text(alphabet: str, length: int) -> Kind:
    return lambda dice: "".join(dice.choices(alphabet, k=length))


def _uuid7(dice: random.Random) -> uuid.UUID:
    time = int(_moment(dice).timestamp() * 1000)
    return uuid.UUID(int=time << 80 | 7 << 76 | dice.getrandbits(12) << 64 | 2 << 62 | dice.getrandbits(62))


def _uuid1(dice: random.Random) -> uuid.UUID:
    return uuid.UUID(int=dice.getrandbits(64) << 64 | 2 << 62 | dice.getrandbits(62), version=1)


def _uuid4(dice: random.Random) -> uuid.UUID:
    return uuid.UUID(int=dice.getrandbits(128), version=4)


def _moment(dice: random.Random) -> datetime:
    return SINCE + timedelta(microseconds=dice.randrange(15 * 365 * 86_400 * 10**6))


def _international(dice: random.Random) -> str:
    return "+" + dice.choice(COUNTRIES) + "".join(dice.choices(string.digits, k=dice.randint(8, 11)))


def _grouped(dice: random.Random) -> str:
    groups = ("".join(dice.choices(string.digits, k=dice.randint(2, 4))) for _ in range(3))
    return "+" + dice.choice(COUNTRIES) + dice.choice(" -.") + dice.choice(" -.").join(groups)


def _national(dice: random.Random) -> str:
    digits = "".join(dice.choices(string.digits, k=10))
    shapes = (
        "({0}{1}{2}) {3}{4}{5}-{6}{7}{8}{9}",
        "0{0}{1} {2}{3}{4}{5} {6}{7}{8}{9}",
        "0{0}{1}{2}/{3}{4}{5}{6}{7}{8}{9}",
    )
    return dice.choice(shapes).format(*digits)


def _address(dice: random.Random) -> str:
    return ".".join(str(dice.randrange(256)) for _ in range(4)) + dice.choice(("", ":443", ":54321"))


def _address6(dice: random.Random) -> str:
    return ":".join(f"{dice.randrange(65536):04x}" for _ in range(8))


ACCOUNTS: Final = (("DE", 18), ("FR", 23), ("GB", 18), ("ES", 20), ("IT", 23), ("NO", 11), ("BE", 12), ("CH", 17))


def _account(dice: random.Random) -> str:
    country, length = dice.choice(ACCOUNTS)
    rest = "".join(dice.choices(string.digits, k=length))
    check = 98 - int("".join(str(int(character, 36)) for character in f"{rest}{country}00")) % 97
    account = f"{country}{check:02}{rest}"
    return dice.choice((account, " ".join(account[place : place + 4] for place in range(0, len(account), 4))))


def _coordinates(dice: random.Random) -> str:
    places = dice.randint(4, 9)
    return f"{dice.uniform(-90, 90):.{places}f}{dice.choice((',', ', ', ' '))}{dice.uniform(-180, 180):.{places}f}"


def _payment(dice: random.Random) -> dict[str, object]:
    return {
        "transaction_id": str(_uuid4(dice)),
        "timestamp": _moment(dice).isoformat(),
        "card_id": "tok_" + _text(BASE62, 24)(dice),  # type: ignore[operator]
        "merchant_id": f"shop-{dice.randrange(10**6)}",
        "amount": f"{dice.uniform(1, 9999):.2f}",
        "currency": dice.choice(("EUR", "USD", "JPY")),
        "merchant_category_code": str(dice.randrange(1000, 9999)),
        "entry_mode": dice.choice(("chip", "contactless", "magstripe", "keyed", "ecommerce")),
        "device_id": f"{dice.getrandbits(128):032x}",
        "ip": _address(dice),
        "latitude": dice.uniform(-90, 90),
        "longitude": dice.uniform(-180, 180),
        "phone": _international(dice),
        "authorized_at": int(_moment(dice).timestamp() * 1000),
    }


KINDS: Final[dict[str, Kind]] = {
    "ids of 20 letters and digits": _text(BASE62, 20),
    "ids of 12 capitals and digits": _text(string.ascii_uppercase + string.digits, 12),
    "ids of 32 lower-case letters and digits": _text(string.ascii_lowercase + string.digits, 32),
    "base64 of 24 bytes": lambda dice: base64.b64encode(dice.randbytes(24)).decode(),
    "base64url of 48 bytes": lambda dice: base64.urlsafe_b64encode(dice.randbytes(48)).decode(),
    "UUID v1": _uuid1,
    "UUID v4": _uuid4,
    "UUID v4 without hyphens": lambda dice: _uuid4(dice).hex,
    "UUID v7": _uuid7,
    "MD5": lambda dice: dice.randbytes(16).hex(),
    "SHA-1": lambda dice: dice.randbytes(20).hex(),
    "SHA-256": lambda dice: dice.randbytes(32).hex(),
    "SHA-256 in capitals": lambda dice: dice.randbytes(32).hex().upper(),
    "telephone numbers, E.164": _international,
    "telephone numbers, E.164 in groups": _grouped,
    "telephone numbers, national": _national,
    "epoch milliseconds": lambda dice: int(_moment(dice).timestamp() * 1000),
    "epoch microseconds": lambda dice: int(_moment(dice).timestamp() * 1_000_000),
    "epoch nanoseconds": lambda dice: str(int(_moment(dice).timestamp() * 1_000_000) * 1000 + dice.randrange(1000)),
    "RFC 3339": lambda dice: _moment(dice).isoformat(),
    "RFC 3339 in UTC, nanoseconds": lambda dice: _moment(dice).strftime("%Y-%m-%dT%H:%M:%S.%f123Z"),
    "times with a blank": lambda dice: str(_moment(dice)),
    "IPv4": _address,
    "IPv6": _address6,
    "coordinates": _coordinates,
    "bank accounts (IBAN)": _account,
    "decimal numbers": lambda dice: dice.uniform(-180, 180),
    "decimal numbers as text": lambda dice: str(dice.uniform(0, 100)),
    "amounts": lambda dice: f"{dice.expovariate(0.001):.2f}",
    "lists of amounts": lambda dice: [round(dice.uniform(1, 99), 2) for _ in range(8)],
    "whole payments": _payment,
    # No rule can distinguish these from card numbers. Their rate is shown, but has no bound.
    **{f"numbers of {n} digits": (lambda dice, n=n: str(dice.randrange(10 ** (n - 1), 10**n))) for n in range(12, 25)},  # type: ignore[misc]
}
NUMERIC: Final = frozenset(name for name in KINDS if name.startswith("numbers of"))


def rate(kind: str, count: int) -> tuple[int, int]:
    """Return the number of values of a kind, and how many the guard mistook for card data. The values never change."""
    dice = random.Random(kind)
    values = (KINDS[kind](dice) for _ in range(count))
    messages = (json.dumps({"value": str(one) if isinstance(one, uuid.UUID) else one}).encode() for one in values)
    return count, sum(find_card_data(message) is not None for message in messages)
