"""The network: three zones; balancers in public subnets, pods in private ones, stores in subnets without a way out."""

from __future__ import annotations

from typing import Any

from aws_cdk import Fn, RemovalPolicy, Stack
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_logs as logs
from constructs import Construct

from k8s.aws.sizes import ZONES

PUBLIC, PODS, STORES = "public", "pods", "stores"


class Network(Stack):
    """The VPC and the key that all that is kept is encrypted with."""

    def __init__(self, scope: Construct, name: str, **given: Any) -> None:
        super().__init__(scope, name, **given)
        self.key = kms.Key(
            self,
            "Key",
            alias="tollgate",
            description="All that Tollgate keeps",
            enable_key_rotation=True,
            removal_policy=RemovalPolicy.RETAIN,
        )
        self.key.grant_encrypt_decrypt(iam.ServicePrincipal(f"logs.{self.region}.amazonaws.com"))
        self.vpc = ec2.Vpc(
            self,
            "Vpc",
            ip_addresses=ec2.IpAddresses.cidr("10.20.0.0/16"),
            availability_zones=[Fn.select(place, Fn.get_azs()) for place in range(ZONES)],
            nat_gateways=ZONES,  # a zone that is lost takes nobody else's way out with it
            restrict_default_security_group=False,  # nothing is in it; closing it takes a function with rights
            subnet_configuration=[
                subnets(PUBLIC, ec2.SubnetType.PUBLIC, 24, map_public_ip_on_launch=False),
                subnets(PODS, ec2.SubnetType.PRIVATE_WITH_EGRESS, 19),
                subnets(STORES, ec2.SubnetType.PRIVATE_ISOLATED, 24),
            ],
            gateway_endpoints={"S3": ec2.GatewayVpcEndpointOptions(service=ec2.GatewayVpcEndpointAwsService.S3)},
        )
        self.vpc.add_flow_log(
            "Flow",
            destination=ec2.FlowLogDestination.to_cloud_watch_logs(log_group(self, "FlowLog", "flow", self.key)),
            traffic_type=ec2.FlowLogTrafficType.REJECT,
        )


def log_group(stack: Stack, name: str, folder: str, key: kms.IKey) -> logs.LogGroup:
    """A log of that stack, encrypted with the key of ours, kept for three months."""
    return logs.LogGroup(
        stack,
        name,
        log_group_name=f"/tollgate/{folder}",
        encryption_key=key,
        retention=logs.RetentionDays.THREE_MONTHS,
        removal_policy=RemovalPolicy.RETAIN,
    )


def subnets(name: str, kind: ec2.SubnetType, bits: int, **more: Any) -> ec2.SubnetConfiguration:
    """One subnet in each zone."""
    return ec2.SubnetConfiguration(name=name, subnet_type=kind, cidr_mask=bits, **more)
