"""The columns of the edge store, and how its table is configured."""

from __future__ import annotations

import pyarrow as pa

# What a message says and where it stood; the rows that are made of messages.
SCHEMA = pa.schema(
    [
        pa.field("user_id", pa.string(), nullable=False),
        pa.field("item_id", pa.string(), nullable=False),
        pa.field("interaction", pa.float64(), nullable=False),
        pa.field("type", pa.string(), nullable=False),
        pa.field("timestamp", pa.timestamp("us", tz="UTC"), nullable=False),
        pa.field("kafka_partition", pa.int32(), nullable=False),
        pa.field("kafka_offset", pa.int64(), nullable=False),
    ]
)
# What the consumer adds. All three are null in rows that the first version wrote.
ADDED = pa.schema(
    [
        pa.field("log", pa.int32()),  # number of the log in this table; a null means 0
        pa.field("ingested_at", pa.timestamp("us", tz="UTC")),  # no client can set it
        pa.field("kafka_row", pa.int32()),  # the row's number in the row's message
    ]
)
TABLE = pa.schema([*SCHEMA, *ADDED])
ORDER = ["ingested_at", "kafka_partition", "kafka_offset", "kafka_row"]

KEEP_REPLACED_HOURS = 1  # for readers that still hold an older version
TOPIC = "streamgcn.topic"  # the table's property that names the topic of the rows
# Statistics of ids would put users' ids into the log, where no erasure reaches them.
WITH_STATISTICS = ["timestamp", "log", *ORDER]
STATISTICS = {"delta.dataSkippingStatsColumns": ",".join(WITH_STATISTICS)}
CONFIGURATION = {
    **STATISTICS,
    "delta.checkpointInterval": "10",  # whoever opens the table reads the commits since the last
    "delta.logRetentionDuration": "interval 2 minutes",  # each commit lists what is there
    "delta.deletedFileRetentionDuration": f"interval {2 * KEEP_REPLACED_HOURS} hours",
}
