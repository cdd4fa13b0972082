#!/bin/sh
# A role and a database of its own for each program; run once, by the image, when its data folder is empty.
set -eu
for name in tollgate mlflow airflow; do
  PGPASSWORD="$(cat "$POSTGRES_PASSWORD_FILE")" psql --quiet --set ON_ERROR_STOP=1 --username "${POSTGRES_USER:-postgres}" \
    --dbname postgres --set name="$name" --set password="$(cat "${SECRETS:-/run/secrets}/${name}_database_password")" <<'SQL'
CREATE ROLE :"name" LOGIN PASSWORD :'password';
CREATE DATABASE :"name" OWNER :"name";
SQL
done
