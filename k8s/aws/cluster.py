"""The Kubernetes cluster: our manifests run on it as they are, which on ECS they would not.

Nodes in three zones in two groups, the service's and all else's. Workloads get their rights as pods, none as nodes.
"""

from __future__ import annotations

import json
from typing import Any

from aws_cdk import CfnOutput, Stack
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_eks as eks
from aws_cdk import aws_iam as iam
from aws_cdk import aws_logs as logs
from constructs import Construct

from k8s.aws.network import PODS, Network
from k8s.aws.sizes import Sizes

NAME = "tollgate"
VERSION = "1.34"
"""The newer of those whose schemas `make test-deploy` holds the manifests to."""

ADDONS: dict[str, dict[str, Any]] = {
    "vpc-cni": {"enableNetworkPolicy": "true"},  # without it the network policies say nothing
    "kube-proxy": {},
    "coredns": {},
    "metrics-server": {},
    "eks-pod-identity-agent": {},
    "aws-ebs-csi-driver": {},
    "aws-efs-csi-driver": {},
}
DRIVERS = {
    "aws-ebs-csi-driver": ("ebs-csi-controller-sa", "service-role/AmazonEBSCSIDriverPolicy"),
    "aws-efs-csi-driver": ("efs-csi-controller-sa", "service-role/AmazonEFSCSIDriverPolicy"),
}
"""Of an add-on that needs rights the account of its pods, and AWS's own policy for it."""


class Cluster(Stack):
    """EKS with its nodes. `admins` are address ranges that may reach the API server from outside; none: nobody may."""

    def __init__(
        self, scope: Construct, name: str, network: Network, sizes: Sizes, admins: list[str], **given: Any
    ) -> None:
        super().__init__(scope, name, **given)
        self._network = network
        self.control = self._control_plane(admins)
        self.cluster_name = self.control.ref
        CfnOutput(self, "ClusterName", value=self.cluster_name, description="aws eks update-kubeconfig --name")
        self.members = ec2.SecurityGroup.from_security_group_id(
            self, "Members", self.control.attr_cluster_security_group_id
        )
        role = role_of(self, "NodeRole", "ec2.amazonaws.com", *NODE_POLICIES)
        groups = [
            self._nodes("ServiceNodes", sizes.service_node, sizes.service_nodes, sizes.service_nodes_most, role),
            self._nodes("JobsNodes", sizes.jobs_node, sizes.jobs_nodes, 2 * sizes.jobs_nodes, role),
        ]
        for addon, values in ADDONS.items():
            made = eks.CfnAddon(
                self,
                f"Addon-{addon}",
                addon_name=addon,
                cluster_name=self.cluster_name,
                configuration_values=json.dumps(values) if values else None,
                pod_identity_associations=self._identity(addon),
                resolve_conflicts="OVERWRITE",
            )
            for group in groups:
                made.add_resource_dependency(group)

    def _control_plane(self, admins: list[str]) -> eks.CfnCluster:
        log = logs.CfnLogGroup(
            self,
            "Log",
            log_group_name=f"/aws/eks/{NAME}/cluster",
            kms_key_id=self._network.key.key_arn,
            retention_in_days=90,
        )
        private = self._network.vpc.select_subnets(subnet_group_name=PODS).subnet_ids
        made = eks.CfnCluster(
            self,
            "ControlPlane",
            name=NAME,
            version=VERSION,
            role_arn=role_of(self, "Role", "eks.amazonaws.com", "AmazonEKSClusterPolicy").role_arn,
            access_config=eks.CfnCluster.AccessConfigProperty(
                authentication_mode="API", bootstrap_cluster_creator_admin_permissions=True
            ),
            resources_vpc_config=eks.CfnCluster.ResourcesVpcConfigProperty(
                subnet_ids=private,
                endpoint_private_access=True,
                endpoint_public_access=bool(admins),
                public_access_cidrs=admins or None,
            ),
            encryption_config=[
                eks.CfnCluster.EncryptionConfigProperty(
                    provider=eks.CfnCluster.ProviderProperty(key_arn=self._network.key.key_arn), resources=["secrets"]
                )
            ],
            logging=eks.CfnCluster.LoggingProperty(
                cluster_logging=eks.CfnCluster.ClusterLoggingProperty(
                    enabled_types=[
                        eks.CfnCluster.LoggingTypeConfigProperty(type=kind)
                        for kind in ("api", "audit", "authenticator", "controllerManager", "scheduler")
                    ]
                )
            ),
            deletion_protection=True,
        )
        made.add_resource_dependency(log)
        return made

    def _nodes(self, name: str, kind: str, least: int, most: int, role: iam.Role) -> eks.CfnNodegroup:
        template = ec2.CfnLaunchTemplate(
            self,
            f"{name}Template",
            launch_template_data=ec2.CfnLaunchTemplate.LaunchTemplateDataProperty(
                instance_type=kind,
                metadata_options=ec2.CfnLaunchTemplate.MetadataOptionsProperty(
                    http_tokens="required",
                    http_put_response_hop_limit=1,  # a pod cannot take the node's rights
                ),
                block_device_mappings=[
                    ec2.CfnLaunchTemplate.BlockDeviceMappingProperty(
                        device_name="/dev/xvda",
                        ebs=ec2.CfnLaunchTemplate.EbsProperty(volume_size=80, volume_type="gp3", encrypted=True),
                    )
                ],
            ),
        )
        return eks.CfnNodegroup(
            self,
            name,
            cluster_name=self.cluster_name,
            node_role=role.role_arn,
            subnets=self._network.vpc.select_subnets(subnet_group_name=PODS).subnet_ids,
            ami_type="AL2023_x86_64_STANDARD",
            labels={"tollgate/nodes": "service" if name == "ServiceNodes" else "jobs"},
            scaling_config=eks.CfnNodegroup.ScalingConfigProperty(min_size=least, desired_size=least, max_size=most),
            launch_template=eks.CfnNodegroup.LaunchTemplateSpecificationProperty(
                id=template.ref, version=template.attr_latest_version_number
            ),
            update_config=eks.CfnNodegroup.UpdateConfigProperty(max_unavailable=1),
        )

    def _identity(self, addon: str) -> list[Any] | None:
        if addon not in DRIVERS:
            return None
        account, policy = DRIVERS[addon]
        role = pod_role(self, f"Role-{addon}", policy)
        return [eks.CfnAddon.PodIdentityAssociationProperty(role_arn=role.role_arn, service_account=account)]


NODE_POLICIES = ("AmazonEKSWorkerNodePolicy", "AmazonEC2ContainerRegistryPullOnly", "AmazonEKS_CNI_Policy")


def role_of(scope: Construct, name: str, principal: str, *policies: str) -> iam.Role:
    """A role that a service of AWS takes, with policies of AWS's own."""
    managed = [iam.ManagedPolicy.from_aws_managed_policy_name(policy) for policy in policies]
    return iam.Role(scope, name, assumed_by=iam.ServicePrincipal(principal), managed_policies=managed)


def pod_role(scope: Construct, name: str, *policies: str) -> iam.Role:
    """A role that pods of one account of the cluster take, by an association that names them."""
    made = role_of(scope, name, "pods.eks.amazonaws.com", *policies)
    trust = made.assume_role_policy
    if trust is None:
        raise RuntimeError(f"Role '{name}' has no trust policy; it must be made here, not imported.")
    trust.add_statements(
        iam.PolicyStatement(actions=["sts:TagSession"], principals=[iam.ServicePrincipal("pods.eks.amazonaws.com")])
    )
    return made
