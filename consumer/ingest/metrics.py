"""The metrics of the consumer."""

from __future__ import annotations

from process.metrics import Metric

# `conflicts` is no figure of the log line: they are ordinary where several consumers commit.
METRICS = (
    Metric("events", "counter", "events", "Events that were stored in the edge store."),
    Metric("rejected", "counter", "rejected", "Messages and rows that were rejected."),
    Metric("unforeseen", "counter", "unforeseen", "Messages with an error that nobody expected."),
    Metric("rows", "gauge", "edge_store_rows", "Rows of the edge store."),
    Metric("lag", "gauge", "lag_messages", "Messages that are not read yet."),
    Metric(
        "conflicts",
        "counter",
        "commit_conflicts",
        "Commits that another consumer's was before; each was tried again.",
    ),
    Metric("commit", "histogram", "commit_seconds", "Time of a commit to the edge store."),
)
