"""Made-up files with the exact columns and forms of well-known public data sets. No value is from one of them."""

from __future__ import annotations

import io
import random
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from support.card_numbers import is_card_number

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

START = datetime(2024, 3, 1, tzinfo=UTC)
DAYS, CARDS, MERCHANTS = 40, 12, 6
Payment = dict[str, Any]


def card_number(card: int) -> str:
    """Make up a card number: it has a valid check digit, and no issuer gave it out."""
    return next(number for digit in range(10) if is_card_number((number := f"400000{card:09d}{digit}").encode()))


def payments(count: int = 400, seed: int = 7) -> Iterator[Payment]:
    """Draw payments in order of time. Frauds are large, and at one merchant."""
    draw = random.Random(seed)
    for n in range(count):
        is_fraud = draw.random() < 0.08
        yield {
            "n": n,
            "after": timedelta(seconds=n * DAYS * 86_400 // count + draw.randrange(60)),
            "card": draw.randrange(CARDS),
            "merchant": 0 if is_fraud else draw.randrange(1, MERCHANTS),
            "amount": round(draw.uniform(300, 900) if is_fraud else draw.uniform(1, 80), 2),
            "fraud": int(is_fraud),
            "noise": [draw.gauss(0, 1) for _ in range(28)],
        }


def _creditcard(one: Payment) -> Payment:
    return {
        "Time": f"{one['after'].total_seconds():.0f}",
        **{f"V{n + 1}": f"{value:.14f}" for n, value in enumerate(one["noise"])},
        "Amount": one["amount"],
        "Class": f'"{one["fraud"]}"',
    }


def _sparkov(one: Payment) -> Payment:
    moment = START + one["after"]
    return {
        "": one["n"],
        "trans_date_trans_time": moment.strftime("%Y-%m-%d %H:%M:%S"),
        "cc_num": card_number(one["card"]),
        "merchant": f'"fraud_Shop {one["merchant"]}, Sons and Co"',
        "category": "misc_net",
        "amt": one["amount"],
        **dict.fromkeys(("first", "last", "gender", "street", "city", "state"), "X"),
        "zip": "12345",
        "lat": 40.1,
        "long": -75.2,
        "city_pop": 1000,
        "job": "X",
        "dob": "1980-01-01",
        "trans_num": f"{(one['n'] + 1) * 2654435761 % 2**128:032x}",
        "unix_time": int((moment - timedelta(days=2557)).timestamp()),
        "merch_lat": 40.25,
        "merch_long": -75.5,
        "is_fraud": one["fraud"],
    }


def _paysim(one: Payment) -> Payment:
    return {
        "step": 1 + int(one["after"] / timedelta(hours=1)),
        "type": "TRANSFER" if one["fraud"] else "PAYMENT",
        "amount": one["amount"],
        "nameOrig": f"C{1000 + one['card']}",
        "oldbalanceOrg": 0.0,
        "newbalanceOrig": 0.0,
        "nameDest": f"M{2000 + one['merchant']}",
        "oldbalanceDest": 0.0,
        "newbalanceDest": 0.0,
        "isFraud": one["fraud"],
        "isFlaggedFraud": 0,
    }


def _banksim(one: Payment) -> Payment:
    return {
        "step": one["after"].days,
        "customer": f"'C{1000 + one['card']}'",
        "age": "'4'",
        "gender": "'M'",
        "zipcodeOri": "'28007'",
        "merchant": f"'M{2000 + one['merchant']}'",
        "zipMerchant": "'28007'",
        "category": "'es_health'",
        "amount": one["amount"],
        "fraud": one["fraud"],
    }


def _ieee_cis(one: Payment) -> Payment:
    return {
        "TransactionID": 2_000_000 + one["n"],
        "isFraud": one["fraud"],
        "TransactionDT": 86_400 + int(one["after"].total_seconds()),
        "TransactionAmt": one["amount"],
        "ProductCD": "WCRHS"[one["merchant"] % 5],
        "card1": 1000 + one["card"],
        "card2": "" if one["card"] == 3 else "321.0",
        "card3": "150.0",
        "card4": "visa",
        "card5": "226.0",
        "card6": "debit",
        "addr1": "315.0",
        "addr2": "87.0",
        "dist1": "",
        "P_emaildomain": "gmail.com",
        "C1": 1.0,
        "D1": "",
        "M1": "T",
        "V1": 1.0,
    }


def _tabformer(one: Payment) -> Payment:
    moment = START + one["after"]
    return {
        "User": one["card"],
        "Card": 0,
        "Year": moment.year,
        "Month": moment.month,
        "Day": moment.day,
        "Time": moment.strftime("%H:%M"),
        "Amount": f"${one['amount'] * (-1 if one['n'] % 20 == 19 else 1):.2f}",
        "Use Chip": ("Swipe Transaction", "Online Transaction", "Chip Transaction")[one["n"] % 3],
        "Merchant Name": -3_000_000_000_000_000_000 + 987_654_321 * one["merchant"],
        "Merchant City": "X",
        "Merchant State": "CA",
        "Zip": "90001.0",
        "MCC": 5912,
        "Errors?": "",
        "Is Fraud?": "Yes" if one["fraud"] else "No",
    }


def _handbook(one: Payment) -> Payment:
    return {
        "": one["n"],
        "TRANSACTION_ID": one["n"],
        "TX_DATETIME": (START + one["after"]).strftime("%Y-%m-%d %H:%M:%S"),
        "CUSTOMER_ID": one["card"],
        "TERMINAL_ID": one["merchant"],
        "TX_AMOUNT": one["amount"],
        "TX_TIME_SECONDS": int(one["after"].total_seconds()),
        "TX_TIME_DAYS": one["after"].days,
        "TX_FRAUD": one["fraud"],
        "TX_FRAUD_SCENARIO": 2 * one["fraud"],
    }


ROWS: dict[str, Callable[[Payment], Payment]] = {
    "banksim": _banksim,
    "creditcard": _creditcard,
    "handbook": _handbook,
    "ieee-cis": _ieee_cis,
    "paysim": _paysim,
    "sparkov": _sparkov,
    "tabformer": _tabformer,
}


def write_set(name: str, folder: Path, count: int = 400) -> Path:
    """Write a file of the shape of a data set."""
    rows = [ROWS[name](one) for one in payments(count)]
    text = io.StringIO()
    names = [f'"{column}"' if name == "creditcard" else column for column in rows[0]]
    text.write(",".join(names) + "\n")
    text.writelines(",".join(map(str, row.values())) + "\n" for row in rows)
    path = folder / f"{name}.csv"
    path.write_text(text.getvalue(), encoding="utf-8")
    return path
