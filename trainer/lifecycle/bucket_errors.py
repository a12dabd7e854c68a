"""What an object store says, in words; and what waiting does not mend."""

from __future__ import annotations

import os
import re

CODE = re.compile(r"<Code>(\w+)</Code>")
NOT_FOUND = ("NoSuchBucket", "ContainerNotFound")
WRONG_KEY = (
    "InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidClientTokenId", "AuthenticationFailed",
)  # fmt: skip
NO_RIGHT = ("AccessDenied", "AuthorizationFailure", "AllAccessDisabled", "AuthorizationError")
OTHER_REGION = ("PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraint")
METADATA = ("169.254.169.254", "metadata.google.internal")  # asked for credentials in a cloud
SERVER = re.compile(r"https?://[^/\s,\"]+")
STATUS = re.compile(r"status code: (\d+ [A-Za-z ]+)")
TEXT = 300  # characters


def in_words(error: BaseException) -> str:
    """What is the matter, in the same words each time it is the same."""
    text = str(error)
    server, status, code = SERVER.search(text), STATUS.search(text), CODE.search(text)
    named = server.group() if server else "the object store"
    if status:
        return f"{named} answers {status.group(1)}" + (f" ({code.group(1)})" if code else "")
    if "HTTP error" in text and "BadScheme" not in text:
        return f"{named} does not answer"
    return " ".join(text.partition("Debug source:")[0].split())[:TEXT]


def fix(error: BaseException) -> str:
    """What to do where waiting does not help; empty where it may."""
    text = str(error)
    code = CODE.search(text)
    said, name = code.group(1) if code else "", type(error).__name__
    if said in NOT_FOUND:
        return "there is no such bucket; create it, or mend its name"
    if said in WRONG_KEY or name == "UnauthenticatedError":
        return (
            "the object store does not know the key; mend the credentials, such as "
            "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        )
    if said in OTHER_REGION or "incorrectly configured region" in text:
        return "the bucket is in another region; set AWS_REGION"
    metadata = os.environ.get("AWS_METADATA_ENDPOINT", METADATA[0])
    if any(place in text for place in (metadata, *METADATA)):
        return (
            "no credentials are given; set those of the object store, such as AWS_ACCESS_KEY_ID "
            "and AWS_SECRET_ACCESS_KEY"
        )
    if said in NO_RIGHT or name == "PermissionDeniedError":
        return (
            "the object store does not allow it; give the user of the key the rights to list, "
            "read, write and delete there"
        )
    if "BadScheme" in text:
        return "its address begins with http://; set AWS_ALLOW_HTTP=true, or use https://"
    return ""
