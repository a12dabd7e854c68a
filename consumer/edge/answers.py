"""What a library says of a place, in one line; and whether another setting would mend it.

The Delta library and obstore give no codes, only texts; those of an object store hold the code of
the answer.
"""

from __future__ import annotations

import re

# Each cause is on a line of its own, behind a coloured arrow.
ARROW = re.compile(r"\s*\x1b\[\d*m↳\x1b\[0m\s*")
# The library's own tries are of no interest, and their times differ from line to line.
ASKED = re.compile(
    r"performing [A-Z]+ (\w+://[^/\s]+)\S* in \S+?(?:, after .*?)?\s+- (.*)", re.DOTALL
)
DETAILS = "\n\nDebug source"  # of the library obstore, which repeats the error
USER = re.compile(r"//[^/@\s]*@")  # and a password, in the address of the object store
STATUS = "Server returned non-2xx status code: "
CODE = re.compile(r"<Code>([^<]+)</Code>")
MESSAGE = re.compile(r"<Message>([^<]+)</Message>")
REGION = re.compile(r"<Region>([\w-]+)</Region>")

NO_CREDENTIALS = re.compile(
    r"loading credentials|IMDS|169\.254\.|/latest/api/token|metadata\.google"
    r"|[Mm]issing ?(?:SecretAccessKey|AccessKeyId)"
)
KEY = re.compile(r"InvalidAccessKeyId|SignatureDoesNotMatch|InvalidToken|ExpiredToken")
RIGHTS = re.compile(r"AccessDenied|: 403 ")
BUCKET = re.compile(r"NoSuchBucket|InvalidBucketName|ContainerNotFound")
WRONG_REGION = re.compile(r"AuthorizationHeaderMalformed|PermanentRedirect|configured region")
NO_TLS = re.compile(r"URL scheme is not allowed|HTTP error: builder error")
NO_VALUE = re.compile(r"Config error: failed to parse")
# By scheme: the variables of a key.
KEYS = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    "gs": "GOOGLE_SERVICE_ACCOUNT",
    "az": "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY",
}


def plain(error: BaseException) -> str:
    """The error in one line, the same line each time; of an answer the code and its message.

    An answer may repeat the id of a key and what was signed; these are left out.
    """
    text = _text(error)
    if asked := ASKED.search(text):
        server, cause = asked.groups()
        if code := CODE.search(cause):
            message = MESSAGE.search(cause)
            cause = f"answers {code[1]}" + (f" ({message[1].rstrip('.')})" if message else "")
        elif cause.startswith(STATUS):
            cause = f"answers {cause.removeprefix(STATUS).split(':')[0]}"
        elif cause.startswith("HTTP error"):
            cause = f"does not answer ({cause.rsplit(': ', 1)[-1]})"
        else:
            cause = f"says: {cause.rsplit(': ', 1)[-1]}"
        text = f"{server} {cause}"
    return USER.sub("//", " ".join(text.split()))


def setting_to_mend(error: BaseException, uri: str, setting: str = "EDGE_STORE") -> str:
    """What to set so that an object store lets this process in; empty where that is not known.

    Args:
        setting: names the place.
    """
    text = _text(error)
    scheme = uri.partition("://")[0]
    keys = KEYS.get(scheme, "the credentials")
    if NO_CREDENTIALS.search(text):
        return f"no credentials were found; set {keys}"
    if KEY.search(text):
        return f"set {keys} to a key that the object store knows and that has not expired"
    if BUCKET.search(text):
        return f"make the bucket, or set {setting} to one that exists"
    if WRONG_REGION.search(text):
        region = REGION.search(text)
        return f"set AWS_REGION to {region[1] if region else 'the region of the bucket'}"
    if RIGHTS.search(text):
        return f"the key of {keys} lacks a right to this place; docs/security.md lists the rights"
    if NO_TLS.search(text):
        return "AWS_ENDPOINT_URL is http://; set AWS_ALLOW_HTTP=true, or take https://"
    if NO_VALUE.search(text):
        return "set or unset the variable of the object store that has this value"
    return ""


def _text(error: BaseException) -> str:
    return ": ".join(ARROW.split(str(error).split(DETAILS)[0]))
