#!/bin/sh
# Run as root while the service's image is built (bentofile.yaml): the folder that its volume is mounted over, whose
# owner the volume takes.
set -eu
install -d -o bentoml -g bentoml -m 0750 /var/lib/tollgate
