"""Every Feast object of the platform. Change a window here, run `feast apply`: stream, history and serving follow.

Feast imports this file by its flat name and runs it; the modules beside it are listed in `.feastignore`.
"""

from datetime import timedelta

from feast import (
    Entity,
    FeatureService,
    FeatureView,
    Field,
    PushSource,
    RequestSource,
    StreamFeatureView,
    ValueType,
)
from feast.aggregation import Aggregation
from feast.types import Bytes, Float64, Int64, String

from feature_repo.context import (
    AT,
    card_change,
    card_context,
    card_spending,
    merchant_past_fraud,
    request_context,
)
from feature_repo.sources import table
from feature_repo.transformations import finished, in_context, state_column, state_field
from feature_repo.vector import FALLBACK_SERVICE, FEATURE_SERVICE
from feature_repo.windows import EVENT_ID_TAG, WindowedFeature, microseconds, spec_of

HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
BURST_WINDOWS = [timedelta(minutes=5)]
CARD_WINDOWS = [HOUR, DAY, 7 * DAY, 30 * DAY]
MERCHANT_WINDOWS = [HOUR, DAY, 7 * DAY, 30 * DAY]
RISK_WINDOWS = [DAY, 7 * DAY, 14 * DAY, 21 * DAY, 30 * DAY]

EVENT = {EVENT_ID_TAG: "transaction_id"}

card = Entity(name="card", join_keys=["card_id"], value_type=ValueType.STRING, description="A payment card")
merchant = Entity(name="merchant", join_keys=["merchant_id"], value_type=ValueType.STRING, description="Who is paid")

# --- Sources ---------------------------------------------------------------------------------------------------------

transactions = table("transactions", timestamp="timestamp", created="ingested_at")
labels = table("labels", timestamp="known_at", created="published_at")
card_profiles = table("card_profiles", timestamp="as_of", created="published_at")
transactions_stream = PushSource(name="transactions_stream", batch_source=transactions)
labels_stream = PushSource(name="labels_stream", batch_source=labels)

request = RequestSource(
    name="transaction",
    schema=[
        Field(name=AT, dtype=Int64),
        Field(name="amount", dtype=Float64),
        Field(name="merchant_category", dtype=String),
        Field(name="country", dtype=String),
        Field(name="channel", dtype=String),
    ],
)


def over(windows: list[timedelta], *functions: tuple[str, str]) -> list[Aggregation]:
    """One aggregation for each window and (function, column)."""
    return [Aggregation(column=c, function=f, time_window=w) for w in windows for f, c in functions]


# --- Stored views: the state of each entity's windows, and the card's daily profile -----------------------------------

card_aggregations = [
    *over(BURST_WINDOWS, ("count", ""), ("sum", "amount")),
    *over(
        CARD_WINDOWS,
        ("count", ""),
        ("sum", "amount"),
        ("mean", "amount"),
        ("std", "amount"),
        ("max", "amount"),
        ("nunique", "merchant_id"),
    ),
    Aggregation(function="seconds_since_last"),
]
card_velocity = StreamFeatureView(
    name="card_velocity",
    description="What the card did in the windows before the payment",
    entities=[card],
    ttl=timedelta(0),
    timestamp_field="timestamp",
    schema=[Field(name="card_id", dtype=String), Field(name=state_field("card_velocity"), dtype=Bytes)],
    source=transactions_stream,
    aggregations=card_aggregations,
    tags=EVENT,
)

merchant_aggregations = [
    *over(MERCHANT_WINDOWS, ("count", ""), ("mean", "amount"), ("nunique", "card_id")),
    Aggregation(function="seconds_since_last"),
]
merchant_velocity = StreamFeatureView(
    name="merchant_velocity",
    description="What happened at the merchant in the windows before the payment",
    entities=[merchant],
    ttl=timedelta(0),
    timestamp_field="timestamp",
    schema=[Field(name="merchant_id", dtype=String), Field(name=state_field("merchant_velocity"), dtype=Bytes)],
    source=transactions_stream,
    aggregations=merchant_aggregations,
    tags=EVENT,
)

risk_aggregations = over(RISK_WINDOWS, ("count", "is_fraud"), ("mean", "is_fraud"))
# A batch view in what it does (labels are published hourly, `feast materialize` computes it); a StreamFeatureView by
# type, because Feast's registry gives a BatchFeatureView back without its aggregations.
merchant_risk = StreamFeatureView(
    name="merchant_risk",
    description="Fraud at the merchant, from labels already known: a label counts at its event time + label delay",
    entities=[merchant],
    ttl=timedelta(0),
    schema=[Field(name="merchant_id", dtype=String), Field(name=state_field("merchant_risk"), dtype=Bytes)],
    source=labels_stream,
    timestamp_field="known_at",
    aggregations=risk_aggregations,
    tags=EVENT,
)

card_profile = FeatureView(
    name="card_profile",
    description="What is known of the card, as of the last midnight (UTC)",
    entities=[card],
    ttl=timedelta(0),
    schema=[
        Field(name="card_id", dtype=String),
        Field(name="home_country", dtype=String),
        Field(name="account_opened_us", dtype=Int64),
        Field(name="birth_year", dtype=Int64),
        Field(name="count_90d", dtype=Float64),
        Field(name="amount_mean_90d", dtype=Float64),
        Field(name="amount_std_90d", dtype=Float64),
    ],
    source=card_profiles,
)

# --- Request-time views: windows finished at the payment's instant, and the payment in its context --------------------

card_spec = spec_of("card_velocity", "card", "card_id", "transaction_id", card_aggregations)
merchant_spec = spec_of("merchant_velocity", "merchant", "merchant_id", "transaction_id", merchant_aggregations)
risk_spec = spec_of("merchant_risk", "merchant", "merchant_id", "transaction_id", risk_aggregations)

payment_context = in_context("payment_context", [request], request_context, [], "The payment itself: size, time, kind")
card_windows = finished("card_windows", card_velocity, request, card_spec, "The card's windows, up to the payment")
card_amounts = in_context(
    "card_amounts",
    [card_velocity, request],
    card_spending,
    [card_spec.dumps(), state_column("card_velocity")],
    "The amount against the card's own spending",
)
card_changes = in_context(
    "card_changes",
    [card_velocity, request],
    card_change,
    [card_spec.dumps(), state_column("card_velocity")],
    "The amount and the last days against what the card spent earlier",
)
merchant_windows = finished(
    "merchant_windows", merchant_velocity, request, merchant_spec, "The merchant's windows, up to the payment"
)
merchant_risk_windows = finished(
    "merchant_risk_windows", merchant_risk, request, risk_spec, "Fraud at the merchant as known at the payment"
)
merchant_past = in_context(
    "merchant_past",
    [merchant_risk, request],
    merchant_past_fraud,
    [risk_spec.dumps(), state_column("merchant_risk")],
    "Fraud at the merchant that began long ago",
)
card_standing = in_context(
    "card_standing", [card_profile, request], card_context, ["card_profile"], "The payment against the card's profile"
)

# --- Feature services: the order here is the order of the model's vector ----------------------------------------------

V1_RISK = [
    WindowedFeature(function, "is_fraud", microseconds(window)).name("merchant")
    for window in (DAY, 7 * DAY, 30 * DAY)
    for function in ("count", "mean")
]

fraud_v2 = FeatureService(
    name=FEATURE_SERVICE,
    features=[
        payment_context,
        card_windows,
        card_amounts,
        card_changes,
        merchant_windows,
        merchant_risk_windows,
        merchant_past,
        card_standing,
    ],
    description="Everything the model sees",
)
fraud_v1 = FeatureService(
    name="fraud_v1",
    features=[
        payment_context,
        card_windows,
        card_amounts,
        merchant_windows,
        merchant_risk_windows[V1_RISK],
        card_standing,
    ],
    description="What models before fraud_v2 see: without the changes of the card's spending and past fraud",
)
fraud_request_v1 = FeatureService(
    name=FALLBACK_SERVICE, features=[payment_context], description="What remains when the online store is away"
)
