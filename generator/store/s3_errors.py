"""Translation of boto3's errors to those of stores: what S3 services say, and how to correct it."""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    CredentialRetrievalError,
    NoCredentialsError,
    PartialCredentialsError,
    ProfileNotFound,
    SSLError,
    SSOError,
)

from generator.errors import (
    AccessDenied,
    BucketMissing,
    ClockSkewed,
    CredentialsExpired,
    ObjectMissing,
    StoreError,
    StoreUnavailable,
)
from generator.store.s3_credentials import EXPIRED_CODES
from generator.store.s3_settings import S3Settings

CONDITIONS_HINT = "latentmill needs conditional writes; use a service, or a version of it, that supports them"
_NO_CREDENTIALS = (NoCredentialsError, PartialCredentialsError, CredentialRetrievalError, ProfileNotFound, SSOError)
_BAD_CREDENTIALS = EXPIRED_CODES | {"AuthorizationHeaderMalformed"}  # HTTP 400
_SKEW_CODES = {"RequestTimeTooSkewed", "RequestExpired"}
_EXPIRED_HINT = "renew the credentials where they come from; files and boto3's own chain are read again by themselves"
_RIGHTS_HINT = "check the credentials, the region, and the permissions to get, put, delete and list"
_DIALECT_HINT = "`latentmill doctor` says which setting a service needs that takes requests in another form"


def status_of(error: ClientError) -> int:
    """The HTTP status of an error response."""
    return error.response["ResponseMetadata"]["HTTPStatusCode"]


def bucket_missing(bucket: str) -> BucketMissing:
    """The error about a bucket that does not exist."""
    hint = "make the bucket (`latentmill doctor --make-bucket` does), or correct its name"
    return BucketMissing(f"s3://{bucket}", "a bucket", "none", hint)


def translate_client_error(
    error: ClientError, bucket: str, where: str, settings: S3Settings, *, expired: bool, conditional: bool
) -> StoreError:
    """An error response as an error about ``where``.

    ``expired``: whether it is about credentials that may be renewed (``generator.store.s3_credentials``);
    ``conditional``: whether the request was a conditional write, whose condition the service understood to hold.
    """
    status, code = status_of(error), error.response["Error"].get("Code", "")
    got = f"HTTP {status} {code}: {error.response['Error'].get('Message', '')}"[:300]
    if code == "NoSuchBucket":
        return bucket_missing(bucket)
    if status == 404:
        return ObjectMissing(where, "an object", "nothing")
    if code in _SKEW_CODES:
        hint = "set the clock of this machine; a time service (NTP) keeps it right"
        return ClockSkewed(where, "a clock within 15 minutes of the service's", f"{got}{_skew(error)}", hint)
    if expired:
        return CredentialsExpired(where, "credentials that are valid", got, _EXPIRED_HINT)
    if status in (401, 403) or code in _BAD_CREDENTIALS:
        return AccessDenied(where, "permission", got, _EXPIRED_HINT if code in EXPIRED_CODES else _RIGHTS_HINT)
    if status == 501 and conditional:
        return StoreUnavailable(where, "a service with conditional writes", got, CONDITIONS_HINT)
    hint = _DIALECT_HINT if status in (400, 501) else ""
    return StoreUnavailable(where, "an answer", f"{got} after {settings.max_attempts} attempt(s)", hint)


def translate_boto_error(error: BotoCoreError, where: str, settings: S3Settings, *, outage: bool) -> StoreError:
    """An error without a response as an error about ``where``.

    ``outage``: whether the source of the credentials gives none at the moment.
    """
    if outage:
        return CredentialsExpired(where, "credentials", str(error), _EXPIRED_HINT)
    if isinstance(error, _NO_CREDENTIALS):
        hint = "set access_key and secret_key, or configure credentials for boto3's own chain"
        return AccessDenied(where, "credentials", str(error), hint)
    hint = "check the endpoint and the network"
    if isinstance(error, SSLError):
        hint = "set ca_file (LATENTMILL_S3_CA_FILE) to the authority that signed the certificate of the service"
    return StoreUnavailable(where, "an answer", f"after {settings.max_attempts} attempt(s): {error}", hint)


def _skew(error: ClientError) -> str:
    """How far this machine's clock is from the one that the response was dated by, for a message."""
    dated = error.response["ResponseMetadata"].get("HTTPHeaders", {}).get("date")
    try:
        theirs = parsedate_to_datetime(dated or "")
    except ValueError:
        return ""
    if theirs.tzinfo is None:
        return ""
    return f" (ours is {(datetime.now(UTC) - theirs).total_seconds():+.0f} s from it)"
