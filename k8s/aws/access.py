"""Who may do what, and the way in: a role for each workload that needs rights in AWS, and the balancer.

The service has none: it gets its models from MLflow, which alone reads and writes the bucket.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from aws_cdk import CfnOutput, Stack
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_eks as eks
from aws_cdk import aws_elasticloadbalancingv2 as elb
from aws_cdk import aws_iam as iam
from constructs import Construct

from k8s.aws.cluster import Cluster, pod_role
from k8s.aws.network import PUBLIC, Network
from k8s.aws.stores import Stores

NAMESPACE = "tollgate"
SERVICE_PORT = 3000
PATHS = ("/predict", "/predict_batch", "/feedback", "/model", "/decisions", "/decisions/*", "/docs.json")
"""What the world may ask: as `overlays/prod/ingress.yaml` has it."""

CONTROLLER = ("kube-system", "aws-load-balancer-controller")
SECRETS = ("external-secrets", "external-secrets")


class Access(Stack):
    """Pod roles, and a balancer that asks for TLS with the certificate of `certificate` (its ARN)."""

    def __init__(
        self,
        scope: Construct,
        name: str,
        network: Network,
        cluster: Cluster,
        stores: Stores,
        certificate: str,
        **given: Any,
    ) -> None:
        super().__init__(scope, name, **given)
        self._cluster = cluster
        objects = iam.PolicyStatement(
            actions=["s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload"],
            resources=[stores.artifacts.arn_for_objects("artifacts/*")],
        )
        listing = iam.PolicyStatement(
            actions=["s3:ListBucket"],
            resources=[stores.artifacts.bucket_arn],
            conditions={"StringLike": {"s3:prefix": ["artifacts", "artifacts/*"]}},
        )
        using = iam.PolicyStatement(actions=["kms:Decrypt", "kms:GenerateDataKey"], resources=[network.key.key_arn])
        self._role("Mlflow", NAMESPACE, "mlflow", [objects, listing, using])
        reading = iam.PolicyStatement(
            actions=["secretsmanager:GetSecretValue", "secretsmanager:DescribeSecret"],
            resources=[secret.secret_arn for secret in stores.secrets.values()],
        )
        opening = iam.PolicyStatement(
            actions=["kms:Decrypt"],
            resources=[network.key.key_arn],
            conditions={"StringEquals": {"kms:ViaService": f"secretsmanager.{self.region}.amazonaws.com"}},
        )
        self._role("Secrets", *SECRETS, [reading, opening])
        pods = self._balancer(network, cluster, stores, certificate)
        changing = iam.PolicyStatement(
            actions=["elasticloadbalancing:RegisterTargets", "elasticloadbalancing:DeregisterTargets"],
            resources=[pods.target_group_arn],
        )
        looking = iam.PolicyStatement(  # AWS lets none of them be limited to a resource
            actions=[
                "elasticloadbalancing:DescribeTargetGroups",
                "elasticloadbalancing:DescribeTargetHealth",
                "ec2:DescribeInstances",
                "ec2:DescribeNetworkInterfaces",
                "ec2:DescribeSecurityGroups",
                "ec2:DescribeSubnets",
                "ec2:DescribeVpcs",
                "ec2:DescribeAvailabilityZones",
            ],
            resources=["*"],
        )
        self._role("Balancing", *CONTROLLER, [changing, looking])
        CfnOutput(self, "Region", value=self.region, description="AWS_DEFAULT_REGION")

    def _role(self, name: str, namespace: str, account: str, rights: Sequence[iam.PolicyStatement]) -> None:
        role = pod_role(self, f"{name}Role")
        for right in rights:
            role.add_to_policy(right)
        eks.CfnPodIdentityAssociation(
            self,
            f"{name}Pods",
            cluster_name=self._cluster.cluster_name,
            namespace=namespace,
            service_account=account,
            role_arn=role.role_arn,
        )

    def _balancer(
        self, network: Network, cluster: Cluster, stores: Stores, certificate: str
    ) -> elb.ApplicationTargetGroup:
        """TLS from outside, the service's pods behind it; what is not named is answered with 404 by the balancer."""
        group = ec2.SecurityGroup(
            self, "BalancerGroup", vpc=network.vpc, description="The balancer", allow_all_outbound=False
        )
        group.add_ingress_rule(ec2.Peer.any_ipv4(), ec2.Port.tcp(443), "payments, over TLS")
        group.add_egress_rule(ec2.Peer.ipv4(network.vpc.vpc_cidr_block), ec2.Port.tcp(SERVICE_PORT), "the pods")
        ec2.CfnSecurityGroupIngress(
            self,
            "BalancerToPods",
            group_id=cluster.members.security_group_id,
            source_security_group_id=group.security_group_id,
            ip_protocol="tcp",
            from_port=SERVICE_PORT,
            to_port=SERVICE_PORT,
            description="The balancer, to the service's pods",
        )
        balancer = elb.ApplicationLoadBalancer(
            self,
            "Balancer",
            vpc=network.vpc,
            vpc_subnets=ec2.SubnetSelection(subnet_group_name=PUBLIC),
            internet_facing=True,
            security_group=group,
            deletion_protection=True,
            drop_invalid_header_fields=True,
            desync_mitigation_mode=elb.DesyncMitigationMode.STRICTEST,
        )
        balancer.log_access_logs(stores.logs, "balancer")
        pods = elb.ApplicationTargetGroup(
            self,
            "Pods",
            vpc=network.vpc,
            target_type=elb.TargetType.IP,
            port=SERVICE_PORT,
            protocol=elb.ApplicationProtocol.HTTP,
            health_check=elb.HealthCheck(path="/readyz", healthy_threshold_count=2, unhealthy_threshold_count=2),
            load_balancing_algorithm_type=elb.TargetGroupLoadBalancingAlgorithmType.LEAST_OUTSTANDING_REQUESTS,
        )
        listener = balancer.add_listener(
            "Tls",
            port=443,
            open=False,
            certificates=[elb.ListenerCertificate.from_arn(certificate)],
            ssl_policy=elb.SslPolicy.TLS13_RES,
            default_action=elb.ListenerAction.fixed_response(404),
        )
        for place, some in enumerate((PATHS[:5], PATHS[5:])):  # a rule takes five
            listener.add_action(
                f"Paths{place}",
                priority=10 * (place + 1),
                conditions=[elb.ListenerCondition.path_patterns(list(some))],
                action=elb.ListenerAction.forward([pods]),
            )
        CfnOutput(self, "Host", value=balancer.load_balancer_dns_name, description="what the domain's name points to")
        CfnOutput(self, "TargetGroup", value=pods.target_group_arn, description="targetGroupARN of the binding")
        return pods
