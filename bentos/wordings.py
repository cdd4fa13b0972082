"""The human wording of a feature and its value, made from the feature's computed name; a family of features has a code.

Codes are stable: statistics and letters to card holders are made from them. They name what a reason is about and not
its direction, which the sign of the contribution tells.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from feature_repo.context import NIGHT_UNTIL
from feature_repo.schema import CHANNELS, MERCHANT_CATEGORIES

CODES = {
    "AMOUNT": "The amount of the payment",
    "AMOUNT_VS_USUAL": "The amount against what is usual for the card",
    "TIME_OF_DAY": "The hour of the payment (UTC)",
    "DAY_OF_WEEK": "Weekend or working day (UTC)",
    "MERCHANT_CATEGORY": "What the merchant sells",
    "CHANNEL": "Point of sale, online or cash machine",
    "FOREIGN": "The country of the payment against the card's home country",
    "CARD_VELOCITY": "How many payments the card made lately",
    "CARD_SPENDING": "How much was spent with the card lately",
    "CARD_USUAL_AMOUNT": "What the card's payments were like lately",
    "CARD_MERCHANTS": "At how many merchants the card paid lately",
    "CARD_LAST_PAYMENT": "Time since the card's previous payment",
    "MERCHANT_VELOCITY": "How many payments the merchant took lately",
    "MERCHANT_SPENDING": "How much was spent at the merchant lately",
    "MERCHANT_USUAL_AMOUNT": "What the merchant's payments were like lately",
    "MERCHANT_CARDS": "How many cards were used at the merchant lately",
    "MERCHANT_LAST_PAYMENT": "Time since the merchant's previous payment",
    "MERCHANT_RISK": "Fraud at the merchant, from labels already known",
    "ACCOUNT_AGE": "How long the account has existed",
    "HOLDER_AGE": "The age of the card holder",
}
"""Every code and what it is about. A column that has no wording here is its own code, in upper case."""

Text = Callable[[float], str]


@dataclass(frozen=True)
class Wording:
    """How a column's reason is put: its code, and the text for the value of the column `reads`."""

    code: str
    reads: str
    text: Text


def wording(column: str, columns: Sequence[str]) -> Wording:
    """The wording of a column of a model with these columns; a plain one for a column of an unknown kind."""
    code, text, reads = _found(column) or (column.upper(), lambda x: f"{column} is {_plain(x)}", column)
    if reads in columns:
        return Wording(code, reads, text)
    return Wording(code, column, lambda x: f"{column} is {_plain(x)}")


def _found(column: str) -> tuple[str, Text, str] | None:
    if column in _OF_PAYMENT:
        code, text, *reads = _OF_PAYMENT[column]
        return code, text, reads[0] if reads else column
    for pattern, worded in _PATTERNS:
        if match := pattern.fullmatch(column):
            return *worded(**match.groupdict()), column
    return None


def _plain(x: float) -> str:
    return "unknown" if math.isnan(x) else f"{x:.4g}"


def _money(x: float) -> str:
    return f"{x:,.2f}" if x < 100_000 else f"{x:,.0f}"  # a float32 has no cents beyond


def _many(x: float, noun: str, *, of: str) -> str:
    return f"no {noun} {of}" if x == 0 else f"{x:.0f} {noun}{'' if x == 1 else 's'} {of}"


def _duration(seconds: float) -> str:
    for unit, name in ((86_400, "days"), (3_600, "hours"), (60, "minutes")):
        if seconds >= 2 * unit:
            return f"{seconds / unit:.0f} {name}"
    return "1 second" if 0.5 < seconds < 1.5 else f"{seconds:.0f} seconds"


def _known(unknown: str, text: Text) -> Text:
    return lambda x: unknown if math.isnan(x) else text(x)


def _name(names: Sequence[str], what: str) -> Text:
    quoted = [f"{what} is {name.replace('_', ' ')}" for name in names]
    return lambda x: quoted[int(x)] if 0 <= x < len(quoted) else f"{what} unknown"


def _either(yes: str, no: str) -> Text:
    return lambda x: yes if x else no


def _hour(x: float) -> str:
    return f"payment {'at night' if x <= NIGHT_UNTIL else 'by day'} ({x:02.0f} h UTC)"


def _period(window: str) -> str:
    count, unit = int(window[:-1]), {"s": "second", "m": "minute", "h": "hour", "d": "day"}[window[-1]]
    return f"in the last {unit}" if count == 1 else f"in the last {count} {unit}s"


_OF_PAYMENT: dict[str, tuple[str, Text] | tuple[str, Text, str]] = {
    "amount": ("AMOUNT", _known("amount unknown", lambda x: f"amount is {_money(x)}")),
    "amount_log": ("AMOUNT", _known("amount unknown", lambda x: f"amount is {_money(x)}"), "amount"),
    "hour": ("TIME_OF_DAY", _known("hour of the payment unknown", _hour)),
    "is_night": ("TIME_OF_DAY", _known("hour of the payment unknown", _hour), "hour"),
    "is_weekend": (
        "DAY_OF_WEEK",
        _known("day unknown", _either("payment at the weekend (UTC)", "payment on a working day (UTC)")),
    ),
    "category_code": ("MERCHANT_CATEGORY", _name(MERCHANT_CATEGORIES, "merchant category")),
    "channel_code": ("CHANNEL", _name(CHANNELS, "channel")),
    "card_is_international": (
        "FOREIGN",
        _known(
            "home country of the card or country of the payment unknown",
            _either("payment outside the card's home country", "payment in the card's home country"),
        ),
    ),
    "card_account_age_days": (
        "ACCOUNT_AGE",
        _known(
            "age of the account unknown",
            lambda x: f"account is {_duration(x * 86_400)} old" if x >= 1 else "account is less than a day old",
        ),
    ),
    "card_holder_age_years": (
        "HOLDER_AGE",
        _known("age of the card holder unknown", lambda x: f"card holder is {x:.0f} years old"),
    ),
}
_AT = {"card": "with this card", "merchant": "at this merchant"}


def _since_last(entity: str) -> tuple[str, Text]:
    unknown = f"no earlier payment {_AT[entity]} known"
    return f"{entity.upper()}_LAST_PAYMENT", _known(
        unknown, lambda x: f"{_duration(x)} since the previous payment {_AT[entity]}"
    )


def _ratio(function: str, window: str) -> tuple[str, Text]:
    usual = {"mean": "usual", "max": "largest"}[function]
    unknown = f"no payment with this card {_period(window)} to compare the amount with"
    return "AMOUNT_VS_USUAL", _known(unknown, lambda x: f"amount is {x:.1f} times the card's {usual} {_period(window)}")


def _zscore(window: str) -> tuple[str, Text]:
    unknown = f"no spread of the card's amounts known {_period(window)} to compare the amount with"
    return "AMOUNT_VS_USUAL", _known(
        unknown,
        lambda x: (
            f"amount is {abs(x):.1f} standard deviations {'above' if x >= 0 else 'below'} the card's mean "
            f"{_period(window)}"
        ),
    )


def _earlier(window: str, lately: str) -> str:
    return f"{_period(window)} before {_period(lately).removeprefix('in ')}"


def _ratio_earlier(window: str, lately: str) -> tuple[str, Text]:
    unknown = f"no payment with this card {_earlier(window, lately)} to compare the amount with"
    return "AMOUNT_VS_USUAL", _known(
        unknown, lambda x: f"amount is {x:.1f} times the card's usual {_earlier(window, lately)}"
    )


def _zscore_earlier(window: str, lately: str) -> tuple[str, Text]:
    code, text = _zscore(window)
    return code, lambda x: text(x).replace(_period(window), _earlier(window, lately))


def _change(function: str, window: str, lately: str) -> tuple[str, Text]:
    what = {"mean": "usual", "max": "largest"}[function]
    unknown = f"no payments with this card both {_period(lately)} and {_earlier(window, lately)}"
    return "CARD_USUAL_AMOUNT", _known(
        unknown,
        lambda x: f"card's {what} amount {_period(lately)} is {x:.1f} times the usual {_earlier(window, lately)}",
    )


def _past_frauds(window: str, lately: str) -> tuple[str, Text]:
    when = f"known at this merchant {_earlier(window, lately)}"
    return "MERCHANT_RISK", _known(f"number of frauds {when} unknown", lambda x: _many(x, "fraud", of=when))


def _fraud(function: str, window: str) -> tuple[str, Text]:
    one = f"label of this merchant's payments became known {_period(window)}"
    many = f"labels of this merchant's payments became known {_period(window)}"
    if function == "count":
        unknown = f"number of {many.replace(' became', ' that became')} unknown"
        return "MERCHANT_RISK", _known(
            unknown, lambda x: f"{'no' if x == 0 else f'{x:.0f}'} {one if x in (0, 1) else many}"
        )
    share = f"fraud among this merchant's payments whose labels became known {_period(window)}"
    return "MERCHANT_RISK", _known(f"no {one}", lambda x: f"{100 * x:.3g} % {share}")


def _windowed(entity: str, function: str, column: str | None, window: str) -> tuple[str, Text]:
    of, subject = f"{_AT[entity]} {_period(window)}", entity.upper()
    if function == "count":
        unknown = f"number of payments {of} unknown"
        return f"{subject}_VELOCITY", _known(unknown, lambda x: _many(x, "payment", of=of))
    if function == "nunique":
        noun, code = {"merchant_id": ("merchant", "MERCHANTS"), "card_id": ("card", "CARDS")}[column or ""]
        used = f"paid {of}" if noun == "merchant" else f"used {of}"
        return f"{subject}_{code}", _known(
            f"number of {noun}s {used} unknown",
            lambda x: _many(x, noun if x == 0 else f"different {noun}", of=used),
        )
    if function == "sum":
        spent = _known(
            f"amount spent {of} unknown", lambda x: f"{_money(x)} spent {of}" if x else f"nothing spent {of}"
        )
        return f"{subject}_SPENDING", spent
    told: dict[str, Text] = {
        "mean": lambda x: f"payments {of} were {_money(x)} on average",
        "std": lambda x: f"amounts {of} varied by {_money(x)}",
        "min": lambda x: f"smallest payment {of} was {_money(x)}",
        "max": lambda x: f"largest payment {of} was {_money(x)}",
    }
    unknown = f"too few payments {of} to know how amounts vary" if function == "std" else f"no payment {of}"
    return f"{subject}_USUAL_AMOUNT", _known(unknown, told[function])


_WINDOW = r"(?P<window>\d+[smhd])"
_EARLIER = rf"{_WINDOW}_before_(?P<lately>\d+[smhd])"
_PATTERNS: list[tuple[re.Pattern[str], Callable[..., tuple[str, Text]]]] = [
    (re.compile(rf"card_amount_to_mean_{_EARLIER}"), _ratio_earlier),
    (re.compile(rf"card_amount_zscore_{_EARLIER}"), _zscore_earlier),
    (re.compile(rf"card_(?P<function>mean|max)_amount_\d+[smhd]_to_{_EARLIER}"), _change),
    (re.compile(rf"merchant_frauds_{_EARLIER}"), _past_frauds),
    (re.compile(r"(?P<entity>card|merchant)_seconds_since_last"), _since_last),
    (re.compile(rf"card_amount_to_(?P<function>mean|max)_{_WINDOW}"), _ratio),
    (re.compile(rf"card_amount_zscore_{_WINDOW}"), _zscore),
    (re.compile(rf"merchant_(?P<function>count|mean)_is_fraud_{_WINDOW}"), _fraud),
    (re.compile(rf"(?P<entity>card)_(?P<column>amount)_(?P<function>mean|std)_{_WINDOW}"), _windowed),
    (re.compile(rf"(?P<entity>card|merchant)_(?P<function>count)(?P<column>)_{_WINDOW}"), _windowed),
    (re.compile(rf"(?P<entity>card)_(?P<function>nunique)_(?P<column>merchant_id)_{_WINDOW}"), _windowed),
    (re.compile(rf"(?P<entity>merchant)_(?P<function>nunique)_(?P<column>card_id)_{_WINDOW}"), _windowed),
    (
        re.compile(rf"(?P<entity>card|merchant)_(?P<function>sum|mean|std|min|max)_(?P<column>amount)_{_WINDOW}"),
        _windowed,
    ),
]
