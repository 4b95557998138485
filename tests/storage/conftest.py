"""Object storage on this machine: moto's server, which speaks S3."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

BUCKET = "pictures"


@contextmanager
def serving_objects() -> Iterator[dict[str, str]]:
    """Run a server with one bucket; yields the variables that lead to it, which are set here too."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    variables = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "of-a-test",
        "AWS_SECRET_ACCESS_KEY": "of-a-test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    before = dict(os.environ)
    os.environ.update(variables)
    try:
        files().mkdir(BUCKET)
        yield variables
    finally:
        os.environ.clear()
        os.environ.update(before)
        server.stop()


def files() -> Any:
    """Return the bucket's file system, which remembers nothing from one call to the next."""
    import s3fs

    return s3fs.S3FileSystem(skip_instance_cache=True, use_listings_cache=False)
