"""The stacks, synthesised for CloudFormation.

    cdk synth -c peak=1000 -c cards=1000000 -c certificate=arn:aws:acm:... -c admins=203.0.113.0/24

`peak` is payments a second, `admins` are address ranges (commas between) that reach the cluster's API server: without
them only the network itself does.
"""

from __future__ import annotations

from typing import Any

from aws_cdk import App, Environment, Tags

from k8s.aws.access import Access
from k8s.aws.cluster import Cluster
from k8s.aws.network import Network
from k8s.aws.sizes import sizes
from k8s.aws.stores import Stores

REGION = "eu-central-1"
CERTIFICATE = f"arn:aws:acm:{REGION}:000000000000:certificate/00000000-0000-0000-0000-000000000000"
"""Nobody's: name yours with `-c certificate=`."""

FLAGS = {
    "@aws-cdk/core:defaultCrossStackReferences": "strong",
    "@aws-cdk/aws-s3:serverAccessLogsUseBucketPolicy": True,
    "@aws-cdk/aws-iam:minimizePolicies": True,
    "@aws-cdk/core:enablePartitionLiterals": True,
}


def build(app: App) -> None:
    """Every stack, sized by the app's context. Raises `TooMuch` for a rate that one set of stacks does not carry."""

    def asked(name: str, otherwise: str) -> str:
        return str(app.node.try_get_context(name) or otherwise)

    found = sizes(float(asked("peak", "1000")), float(asked("cards", "1e6")))
    admins = [one for one in asked("admins", "").split(",") if one]
    given: dict[str, Any] = {"env": Environment(region=asked("region", REGION)), "termination_protection": True}
    network = Network(app, "tollgate-network", **given)
    cluster = Cluster(app, "tollgate-cluster", network, found, admins, **given)
    stores = Stores(app, "tollgate-stores", network, cluster, found, **given)
    Access(app, "tollgate-access", network, cluster, stores, asked("certificate", CERTIFICATE), **given)
    Tags.of(app).add("project", "tollgate")


if __name__ == "__main__":
    made = App(context=FLAGS)
    build(made)
    made.synth()
