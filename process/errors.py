"""The root of all errors that the project expects and explains.

StreamGCNError
├── SettingsError    process/settings.py       a variable's value or name is wrong
│   └── WrongTopic   consumer/edge/logs.py     the edge store belongs to another topic
├── EventError       consumer/event/errors.py  a message is no valid event
├── StoreError       consumer/edge/table.py    the edge store cannot be read or written now
│   ├── StoreMissing                           there is none at the place
│   ├── StoreRefused (a SettingsError too)     the object store does not let the process in
│   ├── Replaced                               another one, or an older state, is at the place
│   └── Conflict                               another process changed the same files
│       └── Overtaken                          another commit was quicker
├── Fenced           consumer/edge/table.py    another consumer has the partition
├── StreamError      consumer/kafka/client.py  Kafka refuses or does not answer
│   ├── AccessRefused (a SettingsError too)    Kafka does not let the process in, or not do that
│   ├── TopicShorter                           the topic ends before what is stored of it
│   └── TooLarge                               the broker takes no message of that size
├── NothingToLearn   trainer/fit/check.py        no edge has a weight above 0
│   └── NothingJoined                          no user has two items
├── Diverged         trainer/model/gradient_training.py  the loss is not finite
├── OneProcess       trainer/model/gcn.py        the gcn is started in several processes
├── RankLost         trainer/group.py            another process of torchrun has ended
├── RankEnds         trainer/lifecycle           something went wrong on one process of torchrun
├── RankFailed       trainer/lifecycle           a process of torchrun has failed to write
├── DeviceMissing    trainer/device.py           a GPU is asked for and there is none
├── SnapshotError    trainer/lifecycle         a snapshot cannot be read or written, or is wrong
│   ├── LiveChanged                            another model went live since the caller looked
│   └── StoreAway                              the object store with the snapshots does not answer
├── LeaseLost        trainer/lifecycle         another trainer has taken MODEL_STORE over
├── RedisDown        serving/redis/errors.py   Redis does not answer
│   └── RedisRefuses                           it answers, and takes no lists
│       └── RedisMisconfigured                 and waiting does not mend it; a SettingsError too
├── ForeignValue     serving/redis/contract.py a key holds what serving did not write
├── ShareUnreadable  serving/redis/share.py    what another process told is not to be read
├── FileError        streamgcn/files/source.py an interaction file cannot be read
├── PlotError        streamgcn/replay/plot.py  the picture of a replay cannot be made
├── EmbeddedError    streamgcn/services/ports.py an embedded part cannot be started
├── BackupError      streamgcn/backup.py      a backup cannot be made or restored
├── PageEnded        streamgcn/page/server.py  the web server of the page has ended by itself
├── FolderInUse      streamgcn/up/folder.py    another `up` has the folder, or it is not writable
└── DemoFailed       streamgcn/demo.py         a list of the demo is missing or wrong
"""

from pathlib import Path
from traceback import extract_tb

TEXT = 500  # characters of an error that a line shows


class StreamGCNError(Exception):
    """Something went wrong that a user can mend; the text says what and how."""


def raised_at(error: BaseException) -> str:
    """File name and line where an error was raised."""
    frames = extract_tb(error.__traceback__)
    return f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "an unknown place"


def in_one_line(error: BaseException) -> str:
    """An error in one line; one that nobody foresaw with the place where it was raised."""
    text = " ".join(str(error).split())[:TEXT]
    if isinstance(error, StreamGCNError):
        return text
    return f"{type(error).__name__} at {raised_at(error)}: {text}"
