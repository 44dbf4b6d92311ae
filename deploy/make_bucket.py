"""Make the bucket of LATENTMILL_ROOT where it is missing, and prove that the store honours conditional writes.

The one-shot service ``bucket`` of compose.yaml; safe to run again. Exit codes: 0 ready, 1 refused, 2 bad settings.
"""

from __future__ import annotations

import sys

from boto3.session import Session
from botocore.exceptions import BotoCoreError, ClientError

from generator.errors import LatentmillError
from generator.store import S3Settings, open_store
from generator.store.url import parse
from workers.settings import load_settings

_THERE = ("BucketAlreadyOwnedByYou", "BucketAlreadyExists")


def make_bucket(name: str, s3: S3Settings) -> bool:
    """Create the bucket; ``False`` if there is one of this name already."""
    session = Session(
        aws_access_key_id=s3.access_key.get_secret_value() if s3.access_key else None,
        aws_secret_access_key=s3.secret_key.get_secret_value() if s3.secret_key else None,
        aws_session_token=s3.session_token.get_secret_value() if s3.session_token else None,
        region_name=s3.region,
    )
    client = session.client("s3", endpoint_url=s3.endpoint_url)
    try:
        if s3.region in (None, "us-east-1"):  # the one region that must not be named
            client.create_bucket(Bucket=name)
        else:
            place = {"LocationConstraint": s3.region}
            client.create_bucket(Bucket=name, CreateBucketConfiguration=place)  # type: ignore[arg-type]
    except ClientError as refused:
        if refused.response["Error"].get("Code") in _THERE:
            return False
        raise
    return True


def main() -> int:
    """Make, prove, report."""
    try:
        settings = load_settings()
        place = parse(settings.root)
        made = place.scheme == "s3" and make_bucket(place.root, settings.s3)
        open_store(settings.root, settings.s3).check_writable()
    except LatentmillError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    except (BotoCoreError, ClientError) as error:
        sys.stderr.write(f"error: the bucket could not be made: {error}\n")
        return 1
    sys.stdout.write(f"{settings.root} is ready ({'made' if made else 'was there'})\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
