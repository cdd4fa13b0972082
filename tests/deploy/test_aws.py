"""AWS as code: synthesised by the CDK, linted, and held to what is promised of it and to what the manifests expect."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from feature_repo.settings import ROOT
from k8s.aws.sizes import sizes
from tests.deploy.rendered import named, objects, pod
from tests.deploy.tools import TOOLS, run

PYTHON = TOOLS / "aws" / "bin" / "python"

DESCRIBES = {
    "elasticloadbalancing:DescribeTargetGroups",
    "elasticloadbalancing:DescribeTargetHealth",
    "ec2:DescribeInstances",
    "ec2:DescribeNetworkInterfaces",
    "ec2:DescribeSecurityGroups",
    "ec2:DescribeSubnets",
    "ec2:DescribeVpcs",
    "ec2:DescribeAvailabilityZones",
}
"""What AWS lets nobody limit to a resource: it only looks."""

KEPT = (
    "AWS::RDS::DBInstance",
    "AWS::ElastiCache::ReplicationGroup",
    "AWS::MSK::Cluster",
    "AWS::S3::Bucket",
    "AWS::EFS::FileSystem",
    "AWS::ECR::Repository",
    "AWS::KMS::Key",
    "AWS::SecretsManager::Secret",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The templates for 1,000 payments a second, as CloudFormation would get them."""
    if not PYTHON.exists():
        pytest.fail("There is no AWS CDK: run `.ci/deploy-tools`, which `make test-deploy` does first.")
    out = tmp_path_factory.mktemp("cdk")
    done = subprocess.run(
        [PYTHON, "-m", "k8s.aws.app"],
        cwd=ROOT,
        env=os.environ | {"CDK_OUTDIR": str(out)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return out


@pytest.fixture(scope="module")
def templates(folder: Path) -> dict[str, Any]:
    paths = sorted(folder.glob("*.template.json"))
    return {path.name.removesuffix(".template.json"): json.loads(path.read_text()) for path in paths}


class Found:
    """The resources of all stacks."""

    def __init__(self, templates: dict[str, Any]) -> None:
        self.all: dict[str, Any] = {
            name: resource for one in templates.values() for name, resource in one["Resources"].items()
        }
        self.outputs: dict[str, Any] = {
            name: output for one in templates.values() for name, output in one["Outputs"].items()
        }

    def of(self, kind: str) -> list[dict[str, Any]]:
        made = [one for one in self.all.values() if one["Type"] == kind]
        assert made, kind
        return made

    def properties(self, kind: str) -> list[dict[str, Any]]:
        return [one["Properties"] for one in self.of(kind)]

    def one(self, kind: str) -> dict[str, Any]:
        [only] = self.properties(kind)
        return only

    def statements(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Every statement of a policy that a role has."""
        for name, one in self.all.items():
            policies = [one["Properties"]["PolicyDocument"]] if one["Type"] == "AWS::IAM::Policy" else []
            if one["Type"] == "AWS::IAM::Role":
                policies = [policy["PolicyDocument"] for policy in one["Properties"].get("Policies", ())]
            yield from ((name, statement) for policy in policies for statement in policy["Statement"])


@pytest.fixture(scope="module")
def found(templates: dict[str, Any]) -> Found:
    return Found(templates)


def many(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def test_cfn_lint_finds_nothing(folder: Path):
    # W3005: the CDK's own function for custom resources names a dependency that CloudFormation knows by itself.
    said = run(
        "cfn-lint", "--regions", "eu-central-1", "--ignore-checks", "W3005", "-t", *folder.glob("*.template.json")
    )
    assert said == ""


def test_the_cdk_s_own_validation_finds_nothing(folder: Path):
    report = folder / "validation-report.json"
    plugins = json.loads(report.read_text())["pluginReports"] if report.exists() else []
    assert [violation["description"] for one in plugins for violation in one["violations"]] == []


def test_all_that_is_kept_is_encrypted(found: Found):
    assert all(one["EnableKeyRotation"] for one in found.properties("AWS::KMS::Key"))
    assert found.one("AWS::RDS::DBInstance")["StorageEncrypted"] is True
    redis = found.one("AWS::ElastiCache::ReplicationGroup")
    assert redis["AtRestEncryptionEnabled"] is True
    kafka = found.one("AWS::MSK::Cluster")["EncryptionInfo"]
    assert found.one("AWS::EFS::FileSystem")["Encrypted"] is True
    keys = [found.one("AWS::RDS::DBInstance")["KmsKeyId"], redis["KmsKeyId"]]
    keys += [kafka["EncryptionAtRest"]["DataVolumeKMSKeyId"], found.one("AWS::EFS::FileSystem")["KmsKeyId"]]
    keys += [
        one["KmsKeyId"]
        for kind in ("AWS::SecretsManager::Secret", "AWS::Logs::LogGroup")
        for one in found.properties(kind)
    ]
    keys += [one["EncryptionConfiguration"]["KmsKey"] for one in found.properties("AWS::ECR::Repository")]
    keys += [one["Provider"]["KeyArn"] for one in found.one("AWS::EKS::Cluster")["EncryptionConfig"]]
    assert all("Key" in json.dumps(key) for key in keys), "each names the key of ours"
    ways = [
        rule["ServerSideEncryptionByDefault"]["SSEAlgorithm"]
        for one in found.properties("AWS::S3::Bucket")
        for rule in one["BucketEncryption"]["ServerSideEncryptionConfiguration"]
    ]
    assert sorted(ways) == ["AES256", "aws:kms"]
    disks = [
        disk["Ebs"]["Encrypted"]
        for one in found.properties("AWS::EC2::LaunchTemplate")
        for disk in one["LaunchTemplateData"]["BlockDeviceMappings"]
    ]
    assert disks == [True, True]


def test_nothing_is_said_in_plain_text_or_to_a_stranger(found: Found):
    redis = found.one("AWS::ElastiCache::ReplicationGroup")
    assert (redis["TransitEncryptionEnabled"], redis["TransitEncryptionMode"]) == (True, "required")
    assert "{{resolve:secretsmanager:" in json.dumps(redis["AuthToken"]), "a reference, no password"
    kafka = found.one("AWS::MSK::Cluster")
    assert kafka["EncryptionInfo"]["EncryptionInTransit"] == {"ClientBroker": "TLS", "InCluster": True}
    assert kafka["ClientAuthentication"] == {
        "Sasl": {"Scram": {"Enabled": True}},
        "Unauthenticated": {"Enabled": False},
    }
    assert found.one("AWS::RDS::DBParameterGroup")["Parameters"]["rds.force_ssl"] == "1"
    [listener] = found.properties("AWS::ElasticLoadBalancingV2::Listener")
    assert (listener["Protocol"], listener["SslPolicy"]) == ("HTTPS", "ELBSecurityPolicy-TLS13-1-2-Res-2021-06")
    assert listener["DefaultActions"][0]["FixedResponseConfig"]["StatusCode"] == "404"
    for bucket in found.properties("AWS::S3::BucketPolicy"):
        denied = [one for one in bucket["PolicyDocument"]["Statement"] if one["Effect"] == "Deny"]
        assert any(one.get("Condition") == {"Bool": {"aws:SecureTransport": "false"}} for one in denied)


def test_nothing_but_the_balancer_can_be_reached_from_outside(found: Found):
    assert found.one("AWS::RDS::DBInstance")["PubliclyAccessible"] is False
    kafka = found.one("AWS::MSK::Cluster")["BrokerNodeGroupInfo"]
    assert kafka["ConnectivityInfo"]["PublicAccess"]["Type"] == "DISABLED"
    cluster = found.one("AWS::EKS::Cluster")["ResourcesVpcConfig"]
    assert (cluster["EndpointPublicAccess"], cluster["EndpointPrivateAccess"]) == (False, True)
    closed = {"BlockPublicAcls", "BlockPublicPolicy", "IgnorePublicAcls", "RestrictPublicBuckets"}
    for bucket in found.properties("AWS::S3::Bucket"):
        assert bucket["PublicAccessBlockConfiguration"] == dict.fromkeys(closed, True)
    rules = [
        rule for one in found.properties("AWS::EC2::SecurityGroup") for rule in one.get("SecurityGroupIngress", ())
    ]
    rules += found.properties("AWS::EC2::SecurityGroupIngress")
    assert {rule["FromPort"] for rule in rules if rule.get("CidrIp") == "0.0.0.0/0"} == {443}
    assert {rule["FromPort"] for rule in rules if "CidrIp" not in rule} == {2049, 3000, 5432, 6379, 9096}
    for stores in found.properties("AWS::ElastiCache::SubnetGroup") + found.properties("AWS::RDS::DBSubnetGroup"):
        assert "storesSubnet" in json.dumps(stores["SubnetIds"])
    for one in found.properties("AWS::EC2::LaunchTemplate"):
        assert one["LaunchTemplateData"]["MetadataOptions"] == {"HttpTokens": "required", "HttpPutResponseHopLimit": 1}


def test_a_zone_may_be_lost(found: Found):
    assert found.one("AWS::RDS::DBInstance")["MultiAZ"] is True
    redis = found.one("AWS::ElastiCache::ReplicationGroup")
    assert (redis["MultiAZEnabled"], redis["AutomaticFailoverEnabled"], redis["NumCacheClusters"]) == (True, True, 3)
    kafka = found.one("AWS::MSK::Cluster")
    assert (kafka["NumberOfBrokerNodes"], len(kafka["BrokerNodeGroupInfo"]["ClientSubnets"])) == (3, 3)
    assert len(found.of("AWS::EC2::NatGateway")) == 3
    assert len(found.of("AWS::EFS::MountTarget")) == 3
    for group in found.properties("AWS::EKS::Nodegroup"):
        assert len(group["Subnets"]) == 3
        assert group["ScalingConfig"]["MinSize"] >= 3


def test_what_is_kept_outlives_the_stacks_and_is_backed_up(found: Found):
    for kind in KEPT:
        assert {one["DeletionPolicy"] for one in found.of(kind)} == {"Retain"}, kind
        assert {one["UpdateReplacePolicy"] for one in found.of(kind)} == {"Retain"}, kind
    postgres = found.one("AWS::RDS::DBInstance")
    assert (postgres["BackupRetentionPeriod"], postgres["DeletionProtection"]) == (30, True)
    assert postgres["MaxAllocatedStorage"] > int(postgres["AllocatedStorage"])
    assert found.one("AWS::ElastiCache::ReplicationGroup")["SnapshotRetentionLimit"] == 7
    assert found.one("AWS::EFS::FileSystem")["BackupPolicy"] == {"Status": "ENABLED"}
    assert {one["VersioningConfiguration"]["Status"] for one in found.properties("AWS::S3::Bucket")} == {"Enabled"}
    assert {one["RetentionInDays"] for one in found.properties("AWS::Logs::LogGroup")} == {90}


def test_nobody_may_do_more_than_is_named(found: Found):
    wide = set()
    for name, statement in found.statements():
        actions = many(statement["Action"])
        assert statement["Effect"] == "Allow", name
        assert [one for one in actions if one == "*" or one.endswith(":*")] == [], name
        if "*" in many(statement["Resource"]):
            wide |= set(actions)
    assert wide == DESCRIBES
    given = {json.dumps(role.get("ManagedPolicyArns", "")) for role in found.properties("AWS::IAM::Role")}
    assert not [one for one in given if "AdministratorAccess" in one or "FullAccess" in one]


def test_only_mlflow_reads_and_writes_the_artifacts_and_the_service_has_no_rights(found: Found):
    accounts = {one["metadata"]["name"] for one in objects("prod") if one["kind"] == "ServiceAccount"}
    pods = {
        (one["Namespace"], one["ServiceAccount"]): one for one in found.properties("AWS::EKS::PodIdentityAssociation")
    }
    ours = {account for namespace, account in pods if namespace == "tollgate"}
    assert ours == {"mlflow"} < accounts
    [(role, objects_)] = [(n, s) for n, s in found.statements() if "s3:GetObject" in many(s["Action"])]
    assert "Mlflow" in role
    assert "/artifacts/*" in json.dumps(objects_["Resource"])
    trusted = [
        one["AssumeRolePolicyDocument"]["Statement"]
        for one in found.properties("AWS::IAM::Role")
        if "pods.eks.amazonaws.com" in json.dumps(one)
    ]
    assert len(trusted) == len(pods) + 2, "and two for the drivers of volumes"


def test_what_the_overlay_expects_is_told(found: Found):
    told = {name: output["Description"] for name, output in found.outputs.items() if "Description" in output}
    config = {one["metadata"]["name"]: one["data"] for one in objects("prod") if one["kind"] == "ConfigMap"}
    [settings] = [data for name, data in config.items() if name.startswith("tollgate")]
    [mlflow] = [data for name, data in config.items() if name.startswith("mlflow")]
    assert told["KafkaBootstrap"] in settings
    assert told["MlflowArtifacts"] in mlflow
    assert told["Region"] in mlflow
    bucket, _, prefix = mlflow[told["MlflowArtifacts"]].removeprefix("s3://").partition("/")
    assert bucket
    assert json.dumps(found.outputs["MlflowArtifacts"]["Value"]).endswith(f'/{prefix}"]]}}')
    kustomization = yaml.safe_load((ROOT / "k8s/overlays/prod/kustomization.yaml").read_text())
    images = {one["name"] for one in kustomization["images"]} | {"tollgate/service"}
    assert images <= {meaning.removeprefix("newName of ") for meaning in told.values()}
    assert {"RedisHost", "RedisPort", "PostgresHost", "PostgresPort", "JobsVolume", "TargetGroup", "Host"} <= set(told)


def test_the_balancer_leads_where_the_ingress_does(found: Found):
    [ingress] = [one for one in objects("prod") if one["kind"] == "Ingress"]
    asked = set()
    for path in ingress["spec"]["rules"][0]["http"]["paths"]:
        asked |= {path["path"]} | ({f"{path['path']}/*"} if path["pathType"] == "Prefix" else set())
    rules = [rule["Conditions"] for rule in found.properties("AWS::ElasticLoadBalancingV2::ListenerRule")]
    paths = {value for [condition] in rules for value in condition["PathPatternConfig"]["Values"]}
    assert paths == asked
    [target] = found.properties("AWS::ElasticLoadBalancingV2::TargetGroup")
    service = pod(named("prod-blue", "StatefulSet", "service-blue"))["containers"][0]
    assert {"name": "http", "containerPort": target["Port"]} in service["ports"]
    assert target["HealthCheckPath"] == service["readinessProbe"]["httpGet"]["path"]


def test_the_stores_are_those_of_the_overlay(found: Found):
    options = named("prod", "Kafka", "kafka")["spec"]["kafka"]["config"]
    text = found.one("AWS::MSK::Configuration")["ServerProperties"]
    assert dict(line.split("=") for line in text.splitlines()) == {
        name: str(value).lower() for name, value in options.items()
    }
    image = named("prod", "Cluster", "postgres")["spec"]["imageName"]
    assert found.one("AWS::RDS::DBInstance")["EngineVersion"] == image.rpartition(":")[2]
    conf = (ROOT / "k8s/overlays/prod/redis/redis.conf").read_text()
    redis = found.one("AWS::ElastiCache::ParameterGroup")["Properties"]
    assert f"maxmemory-policy {redis['maxmemory-policy']}" in conf
    assert re.search(rf"hash-max-(listpack|ziplist)-value {redis['hash-max-listpack-value']}", conf)


def test_the_sizes_are_those_of_the_capacity_model(found: Found):
    wanted = sizes(1_000)
    kafka = found.one("AWS::MSK::Cluster")["BrokerNodeGroupInfo"]
    assert kafka["InstanceType"] == wanted.broker
    assert kafka["StorageInfo"]["EBSStorageInfo"]["VolumeSize"] == wanted.broker_disk
    assert found.one("AWS::ElastiCache::ReplicationGroup")["CacheNodeType"] == wanted.cache_node
    assert found.one("AWS::RDS::DBInstance")["DBInstanceClass"] == f"db.{wanted.database}"
    scaling = [one["ScalingConfig"] for one in found.properties("AWS::EKS::Nodegroup")]
    assert [one["MinSize"] for one in scaling] == [wanted.service_nodes, wanted.jobs_nodes]
