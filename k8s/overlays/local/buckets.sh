#!/bin/sh
# The bucket of MLflow's artifacts, and a user who may use that one alone; what is there stays.
set -eu
mc alias set --quiet store http://minio:9000 root "$(cat /run/secrets/minio_root_password)" >/dev/null
mc mb --ignore-existing store/mlflow
mc admin user add store mlflow "$(cat /run/secrets/mlflow_s3_secret)"
mc admin policy create store mlflow "${POLICY:-/mlflow-bucket-policy.json}"
mc admin policy attach store mlflow --user mlflow ||
  mc admin policy entities store --user mlflow | grep -q mlflow # it was attached before
