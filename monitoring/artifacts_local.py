"""Object storage of this machine in MinIO's place: moto's server, which holds everything in memory.

It and the MLflow server over it run in an environment of their own, made by `.ci/full-tools`.
"""

from __future__ import annotations

from pathlib import Path

from feature_repo.settings import ROOT
from monitoring.supervision import Part, PartFailed

TOOLS = ROOT / ".tollgate" / "tools" / "full"
HOST = "127.0.0.1"
BUCKET = "mlflow"
REGION = "us-east-1"
COPY = Path(__file__).with_name("artifact_copy.py")


def python() -> str:
    """The interpreter that has MLflow with Postgres and S3, and moto. Raises `PartFailed` where there is none."""
    found = TOOLS / "bin" / "python"
    if not (TOOLS / ".ready").exists():
        raise PartFailed(f"There is no environment for MLflow over Postgres and S3 at {TOOLS}: run `.ci/full-tools`.")
    return str(found)


def part(folder: Path, port: int) -> Part:
    """The server; what it holds ends with it."""
    return Part(
        name="artifacts",
        command=(python(), "-m", "moto.server", "--host", HOST, "--port", str(port)),
        folder=folder,
        url=address(port),
        ready=lambda: _makes_bucket(port),
        address=(HOST, port),
        environment={"PYTHONUNBUFFERED": "1"},
    )


def address(port: int) -> str:
    """Where the server answers."""
    return f"http://{HOST}:{port}"


def access(port: int) -> dict[str, str]:
    """The variables by which S3's clients reach the server; it asks for a key and takes any."""
    return {
        "MLFLOW_S3_ENDPOINT_URL": address(port),
        "AWS_ENDPOINT_URL_S3": address(port),
        "AWS_ACCESS_KEY_ID": "local",
        "AWS_SECRET_ACCESS_KEY": "local",
        "AWS_DEFAULT_REGION": REGION,
    }


def _makes_bucket(port: int) -> bool:
    """Whether the server answers, its bucket in place."""
    import httpx

    try:
        return httpx.put(f"{address(port)}/{BUCKET}", timeout=2).status_code == httpx.codes.OK
    except httpx.TransportError:
        return False
