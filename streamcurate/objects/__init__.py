"""Objects in object stores: the one door to ``s3://``, ``gs://``, ``az://``, ``http://`` and ``https://``.

An object appears by one completed PUT, or not at all: what breaks off in between leaves nothing that could be read.
Credentials and endpoints come from the environment, by the names the stores' own tools use (AWS_*, GOOGLE_*, AZURE_*).
What may pass is tried again for STREAMCURATE_STORE_PATIENCE seconds (60); what may not is told at once.
"""

from streamcurate.objects.access import (
    contents,
    create,
    delete,
    delete_all,
    delete_many,
    exists,
    listing,
    match,
    names,
    read,
    read_range,
    refuse_web,
    write,
)
from streamcurate.objects.client import AbsentError, ChangedError, LengthError, Status, status
from streamcurate.objects.conditional import Found, read_found, replace
from streamcurate.objects.streams import PIECE_BYTES, READ_OVERHEAD_BYTES, fill, open_file, side_by_side
from streamcurate.objects.uploads import UPLOAD_BYTES, Upload
from streamcurate.objects.urls import SCHEMES, base_name, is_url, is_web, join, parent

__all__ = [
    "PIECE_BYTES",
    "READ_OVERHEAD_BYTES",
    "SCHEMES",
    "UPLOAD_BYTES",
    "AbsentError",
    "ChangedError",
    "Found",
    "LengthError",
    "Status",
    "Upload",
    "base_name",
    "contents",
    "create",
    "delete",
    "delete_all",
    "delete_many",
    "exists",
    "fill",
    "is_url",
    "is_web",
    "join",
    "listing",
    "match",
    "names",
    "open_file",
    "parent",
    "read",
    "read_found",
    "read_range",
    "refuse_web",
    "replace",
    "side_by_side",
    "status",
    "write",
]
