#!/bin/sh
# Every image of the platform, as tollgate/<name>:<version>: the service's by BentoML, the others from jobs.Dockerfile.
#
#   k8s/images/build.sh 0.1.0 [registry.example/]
set -eu
cd "$(dirname "$0")/../.."
version="${1:?usage: k8s/images/build.sh VERSION [PREFIX]}"
prefix="${2:-}"
command -v docker >/dev/null || { echo "There is no docker, which builds the images."; exit 1; }
bento="$(.venv/bin/python -m bentoml build --version "$version" --output tag | sed 's/^__tag__://')"
.venv/bin/python -m bentoml containerize "$bento" --image-tag "${prefix}tollgate/service:$version"
for target in stream batch mlflow workflows; do
  docker build --file k8s/images/jobs.Dockerfile --target "$target" --tag "${prefix}tollgate/$target:$version" .
done
docker image ls --filter "reference=${prefix}tollgate/*:$version"
