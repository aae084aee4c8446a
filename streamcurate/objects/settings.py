"""What the environment says of stores: their addresses and credentials."""

from __future__ import annotations

import os
import re
from importlib import import_module
from importlib.util import find_spec
from typing import Any
from urllib.parse import urlsplit

from streamcurate.errors import ObjectError

# Where the stores' addresses are said; what is no URL would end the library.
_ENDPOINTS = (
    "AWS_ENDPOINT_URL_S3",
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT",
    "AZURE_STORAGE_ENDPOINT",
    "AZURE_ENDPOINT",
)


def check_endpoints() -> None:
    """Refuse addresses of stores that are no URLs. What they say is not shown: it may hold credentials."""
    for name in _ENDPOINTS:
        value = os.environ.get(name)
        if not value:
            continue
        try:
            parts = urlsplit(value)
            whole = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        except ValueError:  # no port, or brackets
            whole = False
        if not whole or re.search(r"\s", value):
            shown = value.rpartition("@")[2]
            raise ObjectError(f"{name}={shown}: no URL of a store; set it to one, such as http://127.0.0.1:9000")


def profile() -> dict[str, Any]:
    """Credentials of a profile of the AWS tools, where no variable holds any and boto3 is there to read them."""
    environment = os.environ
    if environment.get("AWS_ACCESS_KEY_ID") or environment.get("AWS_SKIP_SIGNATURE", "").lower() in ("true", "1"):
        return {}
    files = (
        environment.get("AWS_SHARED_CREDENTIALS_FILE", "~/.aws/credentials"),
        environment.get("AWS_CONFIG_FILE", "~/.aws/config"),
    )
    named = environment.get("AWS_PROFILE") or environment.get("AWS_DEFAULT_PROFILE")
    if not named and not any(os.path.isfile(os.path.expanduser(file)) for file in files):
        return {}
    if find_spec("boto3") is None:
        if named:
            raise ObjectError(
                f"AWS_PROFILE={named}: profiles are read by boto3, which is not installed; pip install boto3, or set "
                "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
            )
        return {}
    # By name: it ships no types, and most installations have none of it.
    boto3, provider = import_module("boto3"), import_module("obstore.auth.boto3")
    try:
        session = boto3.session.Session()
        if session.get_credentials() is None:
            return {}
        return {"credential_provider": provider.Boto3CredentialProvider(session)}
    except import_module("botocore.exceptions").BotoCoreError as error:
        raise ObjectError(f"AWS_PROFILE={named}: {error}; check ~/.aws/config and ~/.aws/credentials") from error
