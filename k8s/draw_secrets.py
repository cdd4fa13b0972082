"""Draw every secret of an installation at random, as files: `python -m k8s.draw_secrets [--out .tollgate/secrets]`.

What is there stays, so that drawing again adds what a new version needs and changes no password. docker-compose and
`k8s/overlays/local` mount these files; a cluster in earnest gets the same names from its own store of secrets.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import secrets
from collections.abc import Callable, Mapping
from pathlib import Path

from bentos.key_file import changing, new_key
from feature_repo.settings import ROOT

FOLDER = ROOT / ".tollgate" / "secrets"
BYTES = 32

DRAWN = (
    "postgres_password",
    "tollgate_database_password",
    "mlflow_database_password",
    "airflow_database_password",
    "redis_password",
    "minio_root_password",
    "mlflow_s3_secret",
    "grafana_admin_password",
    "airflow_admin_password",
    "airflow_jwt_secret",
    "fraud_log_key",
)
"""Passwords: URL-safe text of 256 random bits."""

DERIVED: Mapping[str, Callable[[Mapping[str, str]], str]] = {
    "fraud_redis_url": lambda has: f"redis://:{has['redis_password']}@redis:6379/0",
    "fraud_postgres_url": lambda has: (
        f"postgresql://tollgate:{has['tollgate_database_password']}@postgres:5432/tollgate"
    ),
    "mlflow_database_url": lambda has: (
        f"postgresql+psycopg://mlflow:{has['mlflow_database_password']}@postgres:5432/mlflow"
    ),
    "airflow_database_url": lambda has: (
        f"postgresql+psycopg2://airflow:{has['airflow_database_password']}@postgres:5432/airflow"
    ),
    "airflow_passwords.json": lambda has: json.dumps({"admin": has["airflow_admin_password"]}),
    "redis_users.acl": lambda has: f"user default on #{_sha256(has['redis_password'])} ~* &* +@all",
    "s3_credentials": lambda has: (
        f"[default]\naws_access_key_id = mlflow\naws_secret_access_key = {has['mlflow_s3_secret']}"
    ),
}
"""What a program wants in a form of its own, made of the passwords."""

FERNET_KEY = "airflow_fernet_key"
API_KEYS, API_KEY = "api_keys.json", "api_key"


def draw(folder: Path) -> list[str]:
    """Have every secret in the folder; the names of those that were not there before.

    The folder is its owner's alone. The files in it are readable, since a container's user has another number.
    """
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    before = {path.name for path in folder.iterdir()}
    has = {name: _kept(folder / name, secrets.token_urlsafe(BYTES)) for name in DRAWN}
    _kept(folder / FERNET_KEY, base64.urlsafe_b64encode(secrets.token_bytes(BYTES)).decode())
    for name, made in DERIVED.items():
        _write(folder / name, made(has) + "\n")
    if not (folder / API_KEYS).exists():
        with changing(folder / API_KEYS) as keys:
            shown, entry = new_key("laptop", ("score", "feedback", "admin"), None, None, keys)
            keys.append(entry)
        (folder / API_KEYS).chmod(0o644)
        _write(folder / API_KEY, shown)
    return sorted({path.name for path in folder.iterdir()} - before)


def _kept(path: Path, drawn: str) -> str:
    if not path.exists():
        _write(path, drawn)
    return path.read_text().strip()


def _write(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o644)


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def main() -> None:
    """Draw what is missing, and say what that was."""
    parser = argparse.ArgumentParser(prog="python -m k8s.draw_secrets", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder of the files; default: %(default)s")
    folder = parser.parse_args().out
    drawn = draw(folder)
    print(f"{folder}: " + (f"drew {', '.join(drawn)}." if drawn else "everything was there."))
    print(f"The service's API key is in {folder / API_KEY}.")


if __name__ == "__main__":
    main()
