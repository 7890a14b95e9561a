"""Guess which column of an unknown file is which field: first by its name, then by its values."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple

from fraud_service.training.time_guess import guess_times

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

# The names of columns in exports and public data sets, without case and punctuation, the usual ones first.
NAMES: Final = {
    "transaction_id": "transactionid txid txnid trxid transid tranid transnum transno transactionno transactionnumber "
    "transactionuuid transactionkey transactionref transactionreference paymentid paymentreference eventid authid "
    "authorizationid authorisationid rrn retrievalreferencenumber arn reference referenceid uuid guid id "
    "transaktionsid transaktionsnummer belegnummer",
    "timestamp": "timestamp transactiontimestamp transdatetranstime transactiondatetime txdatetime txndatetime "
    "transdatetime transactiontime transactiondate txtime txdate txndate transdate transtime eventtime eventtimestamp "
    "datetime paymenttime paymentdate purchasetime purchasedate authorizedat authorisedat authorizationtime localtime "
    "createdat createdtime created occurredat processedat ts time date transactiondt step unixtime epoch zeitpunkt "
    "zeitstempel buchungszeit datum datumzeit",
    "card_id": "cardid cardtoken cardhash cardnumber cardno cardnum ccnum creditcardnumber ccnumber pan pantoken "
    "panhash tokenizedpan paymenttoken paymentinstrumentid instrumentid token card accountid accountnumber accountno "
    "account acctnum acctid customerid customernumber custid customer clientid client userid user memberid nameorig "
    "payerid payer consumerid cardholderid kartennummer kartenid karte kundennummer kundenid kunde",
    "merchant_id": "merchantid merchantnumber merchantno merchantname merchant mid terminalid terminal acceptorid "
    "cardacceptorid storeid store shopid shop payeeid payee beneficiaryid beneficiary recipientid recipient namedest "
    "vendorid vendor sellerid seller haendlerid haendler hndler productcd",
    "amount": "amount transactionamount transactionamt txamount txnamount transamount paymentamount purchaseamount "
    "amt amountusd amountus amounteur transactionvalue value total totalamount price billingamount betrag umsatz",
    "currency": "currency currencycode transactioncurrency transactioncurrencycode txcurrency curr ccy iso4217 "
    "waehrung whrung",
    "merchant_category_code": "merchantcategorycode mcc mcccode merchantcategory merchantcategorycodeid merchanttype "
    "category branche",
    "country": "country countrycode merchantcountry merchantcountrycode transactioncountry acquirercountry land",
    "entry_mode": "entrymode posentrymode posentrymodecode panentrymode posmode inputmode usechip channel",
    "device_id": "deviceid device devicefingerprint fingerprint devicehash",
    "ip": "ip ipaddress ipaddr customerip clientip ipv4",
    "latitude": "latitude merchlat merchantlat merchantlatitude transactionlatitude lat",
    "longitude": "longitude merchlong merchlon merchantlong merchantlongitude transactionlongitude long lon lng",
    "label": "label isfraud fraud txfraud fraudlabel fraudflag fraudind fraudindicator fraudulent isfraudulent "
    "isfraudster frauds fraudbool fraudclass isfrd class target betrug istbetrug",
    "labelled_at": "labelledat labeledat labelknownat labeltime labeldate labeltimestamp",
}
LEAKS: Final = re.compile(
    "chargeback|dispute|fraud|label|refund|reversal|confirmed|investigat|scenario|casestatus|alert|riskscore|blocked"
)
AUTHENTICATION: Final = re.compile("cvv|cvc|cvn|cid2|securitycode|pinblock|track[12]?|magstripe")
PARTS_OF_TIME: Final[Sequence[tuple[str, ...]]] = (("year", "month", "day", "time"), ("year", "month", "day"))
DATE_NAMES: Final = frozenset(
    ["date", "transactiondate", "txdate", "txndate", "transdate", "datum", "paymentdate", "purchasedate"]
)
CLOCK_NAMES: Final = frozenset(
    ["time", "transactiontime", "txtime", "transtime", "uhrzeit", "paymenttime", "purchasetime"]
)
CARD_PARTS: Final[Sequence[tuple[str, ...]]] = (("user", "card"), ("card1", "card2", "card4"))
MIN_LABELS: Final = 2
MAX_LABELS: Final = 3  # one may stand for a label that is not known
LABELS: Final = frozenset(
    [
        "0",
        "1",
        "0.0",
        "1.0",
        "true",
        "false",
        "yes",
        "no",
        "y",
        "n",
        "t",
        "f",
        "fraud",
        "legit",
        "legitimate",
        "genuine",
    ]
)
ID: Final = re.compile(r"[\w'-]{1,64}")
AMOUNT: Final = re.compile(r"[-+$€£ ]{0,3}[0-9][0-9,. ']*([.,][0-9]{1,4})?[ $€£]{0,2}")
CURRENCY: Final = re.compile("[A-Z]{3}")
MIN_PAYMENTS_PER_CARD: Final = 2


class Column(NamedTuple):
    """What is known of a column: its name, the number of its different values, and a sample of them as text."""

    name: str
    distinct: int
    values: list[str]
    rows: int

    @property
    def plain_name(self) -> str:
        """Its name without case, blanks and punctuation."""
        return plain(self.name)


def plain(name: str) -> str:
    """Reduce a name to lower-case letters and digits.

    >>> plain("Is Fraud?"), plain("TX_AMOUNT")
    ('isfraud', 'txamount')
    """
    return re.sub("[^a-z0-9]", "", name.lower())


def by_name(names: Sequence[str]) -> dict[str, list[str]]:
    """Return the columns of each field whose name is known; several columns form a field together.

    >>> by_name(["cc_num", "amt", "Year", "Month", "Day", "Is Fraud?"])
    {'timestamp': ['Year', 'Month', 'Day'], 'card_id': ['cc_num'], 'amount': ['amt'], 'label': ['Is Fraud?']}
    """
    columns = {plain(name): name for name in reversed(names)}
    found = {}
    for field, known in NAMES.items():
        parts = _parts(field, columns)
        if parts:
            found[field] = parts
            continue
        name = next((columns[one] for one in known.split() if one in columns), None)
        if name is not None:
            found[field] = [name]
    return found


def _parts(field: str, columns: dict[str, str]) -> list[str] | None:
    if field == "timestamp":
        for parts in PARTS_OF_TIME:
            if columns.keys() >= set(parts):
                return [columns[part] for part in parts]
        days, clocks = ([name for name in columns if name in names] for names in (DATE_NAMES, CLOCK_NAMES))
        if days and clocks and not columns.keys() & {"timestamp", "datetime", "transactiondatetime"}:
            return [columns[days[0]], columns[clocks[0]]]
    if field == "card_id":
        for parts in CARD_PARTS:
            if columns.keys() >= set(parts):
                return [columns[part] for part in parts]
    return None


def by_values(missing: Collection[str], columns: Iterable[Column]) -> dict[str, str]:
    """Return, for fields without a column of a known name, the column whose values fit best."""
    free = {column.name: column for column in columns if column.values}
    found = {}
    for field, search in _SEARCHES.items():
        if field in missing and (column := search(list(free.values()))) is not None:
            found[field] = column.name
            del free[column.name]
    return found


def is_label(column: Column) -> bool:
    """Whether a column has two values that could be the label, the one for fraud in the minority."""
    words = {value.strip().lower() for value in column.values}
    return MIN_LABELS <= len(words) <= MAX_LABELS and words <= LABELS


def _label(columns: list[Column]) -> Column | None:
    return next((column for column in columns if is_label(column)), None)


def _time(columns: list[Column]) -> Column | None:
    for column in columns:
        guess = guess_times(column.values)
        if guess is not None and guess.origin is None:
            return column
    return None


def _currency(columns: list[Column]) -> Column | None:
    return next((one for one in columns if one.distinct <= 200 and _all(CURRENCY, one)), None)  # noqa: PLR2004


def _amount(columns: list[Column]) -> Column | None:
    fitting = [one for one in columns if _all(AMOUNT, one) and any(re.search("[.,]", value) for value in one.values)]
    return max(fitting, key=lambda one: one.distinct, default=None)


def _transaction(columns: list[Column]) -> Column | None:
    return next((one for one in columns if one.distinct == one.rows > 1 and _all(ID, one)), None)


def _card(columns: list[Column]) -> Column | None:
    fitting = [one for one in columns if MIN_PAYMENTS_PER_CARD * one.distinct <= one.rows and one.distinct > 1]
    fitting = [one for one in fitting if _all(ID, one) and not is_label(one)]
    return max(fitting, key=lambda one: one.distinct, default=None)


def _all(pattern: re.Pattern[str], column: Column) -> bool:
    return all(pattern.fullmatch(value.strip()) for value in column.values)


# The order matters: a column that one search takes is not free for those after it.
_SEARCHES: Final = {
    "timestamp": _time,
    "label": _label,
    "currency": _currency,
    "amount": _amount,
    "transaction_id": _transaction,
    "card_id": _card,
    "merchant_id": _card,
}
