"""Copies a bucket to a folder and back: `artifact_copy.py save|restore BUCKET FOLDER`, S3 as AWS_* variables name it.

It runs as a file, in an environment that has boto3, and imports nothing of the project. A file is in place whole or not
at all; what the folder or the bucket has besides stays.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any


def save(client: Any, bucket: str, folder: Path) -> int:
    """Copy what the bucket has and the folder has not; objects are never changed here, so a name says all."""
    copied = 0
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket):
        for found in page.get("Contents", []):
            file = folder / found["Key"]
            if not file.exists():
                file.parent.mkdir(parents=True, exist_ok=True)
                part = file.with_name(f"{file.name}.part")
                client.download_file(bucket, found["Key"], str(part))
                os.replace(part, file)
                copied += 1
    return copied


def restore(client: Any, bucket: str, folder: Path) -> int:
    """Copy every file of the folder into the bucket."""
    files = [file for file in sorted(folder.rglob("*")) if file.is_file() and file.suffix != ".part"]
    for file in files:
        client.upload_file(str(file), bucket, str(file.relative_to(folder)))
    return len(files)


if __name__ == "__main__":
    import boto3

    direction, bucket, folder = sys.argv[1:]
    act = {"save": save, "restore": restore}[direction]
    print(f"{act(boto3.client('s3'), bucket, Path(folder))} objects")
