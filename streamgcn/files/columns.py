"""Which column of a file holds what: by the options, the event's names, or well-known ones."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, fields

from process.text import visible
from streamgcn.files.source import FileError

DEFAULTS = {
    "user": "user_id",
    "item": "item_id",
    "interaction": "interaction",
    "timestamp": "timestamp",
    "type": "type",
}
# Without case, spaces, dashes and underscores.
WELL_KNOWN = {
    "user": {
        "user", "userid", "uid", "username", "visitor", "visitorid", "reviewer", "reviewerid",
        "customer", "customerid", "client", "clientid", "member", "memberid", "householdkey",
    },
    "item": {
        "item", "itemid", "product", "productid", "movie", "movieid", "asin", "isbn", "sku",
        "stockcode", "article", "articleid", "book", "bookid", "business", "businessid", "song",
        "songid", "track", "trackid", "artist", "artistid", "game", "gameid", "appid", "video",
        "videoid", "news", "newsid", "anime", "animeid", "recipe", "recipeid", "place", "placeid",
        "venue", "venueid", "location", "locationid",
    },
    "interaction": {
        "interactions", "rating", "ratings", "bookrating", "starrating", "score", "stars",
        "overall", "count", "counts", "playcount", "plays", "quantity", "weight",
    },
    "timestamp": {
        "timestamps", "time", "date", "datetime", "ts", "eventtime", "eventtimestamp", "unixtime",
        "unixtimestamp", "utctimestamp", "unixreviewtime", "createdat", "invoicedate", "eventdate",
        "reviewdate", "checkintime",
    },
    "type": {"event", "eventtype", "action", "behavior", "behaviour", "behaviortype"},
}  # fmt: skip
SHOWN = 20  # names of columns in a message


@dataclass(frozen=True)
class Columns:
    """Names of columns as they were given; None for the usual names, "" for no column."""

    user: str | None = None
    item: str | None = None
    interaction: str | None = None
    timestamp: str | None = None
    type: str | None = None


@dataclass(frozen=True)
class Roles:
    """The column that is read for each field of an event, None for none."""

    user: str
    item: str
    interaction: str | None = None
    timestamp: str | None = None
    type: str | None = None

    def used(self) -> list[str]:
        """The columns that are read, in the order of the fields."""
        return [name for name in vars(self).values() if name is not None]

    def sentence(self, times: str) -> str:
        """What is read from where; `times` says in which form the times are."""
        said = [f"users from {visible(self.user)}", f"items from {visible(self.item)}"]
        for what, name, form, without in (
            ("interactions", self.interaction, "", " (each counts 1)"),
            ("times", self.timestamp, times, " (each is now)"),
            ("types", self.type, "", ""),
        ):
            found = f"{what} from {visible(name)}{form}" if name is not None else ""
            said.append(found or f"no {what}{without}")
        return ", ".join(said)


def choose(file: str, names: Sequence[str], given: Columns, spelled: bool = False) -> Roles:
    """The columns to read of those that a file has.

    Args:
        spelled: whether the names are from the command line, where `user` says enough.

    Raises:
        FileError: a given name is not there; there is no column of users or items; several could be
            meant; or one is named twice.
    """
    chosen: dict[str, str | None] = {}
    for field in fields(Columns):
        role: str = field.name
        name = getattr(given, role)
        if name is None and spelled and role in names:
            name = role
        chosen[role] = _chosen(file, names, role, name) if name != "" else None
    used = [name for name in chosen.values() if name is not None]
    for name in used:
        if used.count(name) > 1:
            roles = [role for role, column in chosen.items() if column == name]
            raise FileError(f"{file}: column {visible(name)} cannot be {' and '.join(roles)}")
        if names.count(name) > 1:
            raise FileError(
                f"{file} has {names.count(name)} columns named {visible(name)}; rename all but one"
            )
    user, item = chosen["user"], chosen["item"]
    if user is None or item is None:
        missing = "user" if user is None else "item"
        raise FileError(
            f"{file} has no column of {missing}s that is known by name; {_there(names)}; name it "
            f"with --{missing}-column. If the file has no header, name all columns in order, as in "
            "--columns user,item,interaction,timestamp"
        )
    return Roles(user, item, chosen["interaction"], chosen["timestamp"], chosen["type"])


def known(name: str, role: str) -> bool:
    """Whether a column of this name is taken for `role` without being told."""
    return name == DEFAULTS[role] or _plain(name) in WELL_KNOWN[role] | {_plain(DEFAULTS[role])}


def _chosen(file: str, names: Sequence[str], role: str, given: str | None) -> str | None:
    if given is not None:
        if given not in names:
            raise FileError(
                f"{file} has no column {visible(given)}, which --{role}-column names; "
                f"{_there(names)}"
            )
        return given
    if DEFAULTS[role] in names:
        return DEFAULTS[role]
    candidates = list(dict.fromkeys(name for name in names if known(name, role)))
    if len(candidates) > 1:
        several = " or ".join(visible(name) for name in candidates)
        raise FileError(
            f"{file}: the {role} could be in column {several}; say which with --{role}-column"
            + (" ('' for none)" if role not in ("user", "item") else "")
        )
    return candidates[0] if candidates else None


def listed(names: Sequence[str]) -> str:
    """Names of columns, not too many."""
    shown = ", ".join(visible(name, 60) for name in names[:SHOWN])
    return f"{shown} and {len(names) - SHOWN} more" if len(names) > SHOWN else shown


def _there(names: Sequence[str]) -> str:
    return f"there are {listed(names) or 'none'}"


def _plain(name: str) -> str:
    """A name without case, spaces, dashes, underscores, and the type that RecBole's files add."""
    return re.sub(r":(token|float)$|[\s_-]+", "", name.lower())
