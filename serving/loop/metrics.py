"""The metrics of serving."""

from __future__ import annotations

from process.metrics import Metric

METRICS = (
    Metric("events", "counter", "events", "Events that were read."),
    Metric("refreshed", "counter", "refreshed_lists", "Lists that were written after events."),
    Metric("unforeseen", "counter", "unforeseen", "Events with an error that nobody expected."),
    Metric("users", "gauge", "users", "Users who are known."),
    Metric("due", "gauge", "due_users", "Users whose list is to be written after an event."),
    Metric("lag", "gauge", "lag_messages", "Messages that are not read yet."),
    Metric(
        "freshness",
        "histogram",
        "freshness_seconds",
        "Time from an event's message to the user's new list.",
    ),
    Metric("list_making", "histogram", "list_making_seconds", "Time to make a block of lists."),
    Metric("published", "gauge", "published_ratio", "Share of the live model's lists in Redis."),
    Metric("redis_evicted", "gauge", "redis_evicted_keys", "Keys that Redis has evicted."),
    Metric("model", "text", "model_info", "1, with the version of the model in use, or none."),
)
