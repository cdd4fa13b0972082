"""The stores: Postgres, Redis, Kafka, buckets, the jobs' shared volume, images and passwords.

Each is encrypted with the key of ours, lies in three zones (two for Postgres), speaks TLS alone and lets in the
cluster's members alone.
"""

from __future__ import annotations

import json
from typing import Any

from aws_cdk import CfnOutput, Duration, RemovalPolicy, Stack, custom_resources
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_ecr as ecr
from aws_cdk import aws_efs as efs
from aws_cdk import aws_elasticache as elasticache
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_msk as msk
from aws_cdk import aws_rds as rds
from aws_cdk import aws_s3 as s3
from aws_cdk import aws_secretsmanager as secretsmanager
from constructs import Construct

from k8s.aws.cluster import Cluster
from k8s.aws.network import STORES, Network, log_group
from k8s.aws.sizes import Sizes

IMAGES = ("service", "stream", "batch", "mlflow", "workflows")
POSTGRES = rds.PostgresEngineVersion.of("17.6", "17")
KAFKA = "3.9.x.kraft"
BROKER_OPTIONS = {
    "auto.create.topics.enable": "false",
    "default.replication.factor": "3",
    "min.insync.replicas": "2",
    "offsets.topic.replication.factor": "3",
    "transaction.state.log.replication.factor": "3",
    "transaction.state.log.min.isr": "2",
    "unclean.leader.election.enable": "false",
}
"""As `overlays/prod/kafka.yaml` has them."""

PORTS = {"redis": 6379, "postgres": 5432, "kafka": 9096, "efs": 2049}


class Stores(Stack):
    """All that is kept. Nothing of it goes with the stack."""

    def __init__(self, scope: Construct, name: str, network: Network, cluster: Cluster, sizes: Sizes, **given: Any):
        super().__init__(scope, name, **given)
        self._network, self._cluster = network, cluster
        self.key = kms.Key.from_key_arn(self, "Key", network.key.key_arn)
        self.logs = self._log_bucket()
        self.artifacts = self._artifacts()
        self.secrets = {
            "postgres": self._password("Postgres", "tollgate/database", {"username": "tollgate"}),
            "redis": self._password("Redis", "tollgate/redis"),
            "kafka": self._password("Kafka", "AmazonMSK_tollgate", {"username": "tollgate"}),  # MSK wants the prefix
            "mlflow": self._password("Mlflow", "tollgate/mlflow-database", {"username": "mlflow"}),
            "log-key": self._password("LogKey", "tollgate/log-key"),
            "api-keys": self._password("ApiKeys", "tollgate/api-keys"),
        }
        self._postgres(sizes)
        self._redis(sizes)
        self._kafka(sizes)
        self._volume()
        for image in IMAGES:
            self._images(image)

    # --- buckets -----------------------------------------------------------------------------------------------------
    def _log_bucket(self) -> s3.Bucket:
        return s3.Bucket(
            self,
            "AccessLogs",
            encryption=s3.BucketEncryption.S3_MANAGED,  # what delivers the balancer's logs knows no other
            lifecycle_rules=[s3.LifecycleRule(expiration=Duration.days(90))],
            object_ownership=s3.ObjectOwnership.BUCKET_OWNER_ENFORCED,
            versioned=True,
            **PRIVATE,
        )

    def _artifacts(self) -> s3.Bucket:
        made = s3.Bucket(
            self,
            "Artifacts",
            encryption=s3.BucketEncryption.KMS,
            encryption_key=self.key,
            bucket_key_enabled=True,
            versioned=True,
            lifecycle_rules=[
                s3.LifecycleRule(
                    noncurrent_version_expiration=Duration.days(90),
                    abort_incomplete_multipart_upload_after=Duration.days(7),
                )
            ],
            server_access_logs_bucket=self.logs,
            server_access_logs_prefix="artifacts/",
            object_ownership=s3.ObjectOwnership.BUCKET_OWNER_ENFORCED,
            **PRIVATE,
        )
        self._tell("MlflowArtifacts", f"s3://{made.bucket_name}/artifacts", "MLFLOW_ARTIFACTS_DESTINATION")
        return made

    # --- passwords ---------------------------------------------------------------------------------------------------
    def _password(self, name: str, path: str, beside: dict[str, str] | None = None) -> secretsmanager.Secret:
        """A password that is drawn in AWS and seen by nobody; `api-keys` is to be replaced by a file of hashes."""
        return secretsmanager.Secret(
            self,
            f"{name}Secret",
            secret_name=path,
            encryption_key=self.key,
            generate_secret_string=secretsmanager.SecretStringGenerator(
                password_length=40,
                exclude_punctuation=True,
                secret_string_template=json.dumps(beside or {}),
                generate_string_key="password",
            ),
            removal_policy=RemovalPolicy.RETAIN,
        )

    # --- Postgres ----------------------------------------------------------------------------------------------------
    def _postgres(self, sizes: Sizes) -> None:
        group = self._let_in("Postgres", PORTS["postgres"])
        engine = rds.DatabaseInstanceEngine.postgres(version=POSTGRES)
        made = rds.DatabaseInstance(
            self,
            "Postgres",
            engine=engine,
            instance_type=ec2.InstanceType(sizes.database),
            vpc=self._network.vpc,
            vpc_subnets=ec2.SubnetSelection(subnet_group_name=STORES),
            security_groups=[group],
            publicly_accessible=False,
            multi_az=True,
            database_name="tollgate",
            credentials=rds.Credentials.from_secret(self.secrets["postgres"], "tollgate"),
            parameter_group=rds.ParameterGroup(
                self, "PostgresParameters", engine=engine, parameters={"rds.force_ssl": "1", "log_statement": "none"}
            ),
            storage_type=rds.StorageType.GP3,
            allocated_storage=sizes.database_disk,
            max_allocated_storage=sizes.database_disk_most,
            storage_encrypted=True,
            storage_encryption_key=self.key,
            backup_retention=Duration.days(30),
            preferred_backup_window="01:30-02:30",
            preferred_maintenance_window="sun:03:30-sun:04:30",
            copy_tags_to_snapshot=True,
            deletion_protection=True,
            auto_minor_version_upgrade=True,
            enable_performance_insights=True,
            performance_insight_encryption_key=self.key,
            monitoring_interval=Duration.minutes(1),
            cloudwatch_logs_exports=["postgresql", "upgrade"],
            ca_certificate=rds.CaCertificate.RDS_CA_RSA2048_G1,
            removal_policy=RemovalPolicy.RETAIN,
        )
        self._tell("PostgresHost", made.db_instance_endpoint_address, "host in FRAUD_POSTGRES_URL")
        self._tell("PostgresPort", made.db_instance_endpoint_port, "port in FRAUD_POSTGRES_URL")

    # --- Redis -------------------------------------------------------------------------------------------------------
    def _redis(self, sizes: Sizes) -> None:
        """One primary, a replica in each other zone. It never evicts: a full one refuses, the journals take over."""
        group = self._let_in("Redis", PORTS["redis"])
        subnets = elasticache.CfnSubnetGroup(
            self,
            "RedisSubnets",
            description="Tollgate's stores",
            subnet_ids=self._network.vpc.select_subnets(subnet_group_name=STORES).subnet_ids,
        )
        options = elasticache.CfnParameterGroup(
            self,
            "RedisParameters",
            cache_parameter_group_family="valkey8",
            description="Tollgate: nothing is forgotten, states of up to 4 kB in the compact form of a hash",
            properties={"maxmemory-policy": "noeviction", "hash-max-listpack-value": "4096"},
        )
        log = log_group(self, "RedisLog", "redis", self.key)
        made = elasticache.CfnReplicationGroup(
            self,
            "Redis",
            replication_group_description="Features, claims and the decision log",
            engine="valkey",
            engine_version="8.0",
            cache_node_type=sizes.cache_node,
            num_cache_clusters=sizes.cache_nodes,
            multi_az_enabled=True,
            automatic_failover_enabled=True,
            at_rest_encryption_enabled=True,
            kms_key_id=self.key.key_arn,
            transit_encryption_enabled=True,
            transit_encryption_mode="required",
            auth_token=self.secrets["redis"].secret_value_from_json("password").unsafe_unwrap(),  # a reference to it
            cache_parameter_group_name=options.ref,
            cache_subnet_group_name=subnets.ref,
            security_group_ids=[group.security_group_id],
            snapshot_retention_limit=7,
            snapshot_window="02:30-03:30",
            preferred_maintenance_window="sun:04:30-sun:05:30",
            auto_minor_version_upgrade=True,
            log_delivery_configurations=[
                elasticache.CfnReplicationGroup.LogDeliveryConfigurationRequestProperty(
                    destination_type="cloudwatch-logs",
                    destination_details=elasticache.CfnReplicationGroup.DestinationDetailsProperty(
                        cloud_watch_logs_details=elasticache.CfnReplicationGroup.CloudWatchLogsDestinationDetailsProperty(
                            log_group=log.log_group_name
                        )
                    ),
                    log_format="json",
                    log_type="engine-log",  # no slow log: it would hold payments
                )
            ],
        )
        made.apply_removal_policy(RemovalPolicy.RETAIN)
        self._tell("RedisHost", made.attr_primary_end_point_address, "host in FRAUD_REDIS_URL, with rediss://")
        self._tell("RedisPort", made.attr_primary_end_point_port, "port in FRAUD_REDIS_URL")

    # --- Kafka -------------------------------------------------------------------------------------------------------
    def _kafka(self, sizes: Sizes) -> None:
        group = self._let_in("Kafka", PORTS["kafka"])
        options = msk.CfnConfiguration(
            self,
            "KafkaOptions",
            name="tollgate",
            kafka_versions_list=[KAFKA],
            server_properties="\n".join(f"{name}={value}" for name, value in BROKER_OPTIONS.items()),
        )
        log = log_group(self, "KafkaLog", "kafka", self.key)
        made = msk.CfnCluster(
            self,
            "Kafka",
            cluster_name="tollgate",
            kafka_version=KAFKA,
            number_of_broker_nodes=sizes.brokers,
            broker_node_group_info=msk.CfnCluster.BrokerNodeGroupInfoProperty(
                instance_type=sizes.broker,
                client_subnets=self._network.vpc.select_subnets(subnet_group_name=STORES).subnet_ids,
                security_groups=[group.security_group_id],
                storage_info=msk.CfnCluster.StorageInfoProperty(
                    ebs_storage_info=msk.CfnCluster.EBSStorageInfoProperty(volume_size=sizes.broker_disk)
                ),
                connectivity_info=msk.CfnCluster.ConnectivityInfoProperty(
                    public_access=msk.CfnCluster.PublicAccessProperty(type="DISABLED")
                ),
            ),
            configuration_info=msk.CfnCluster.ConfigurationInfoProperty(
                arn=options.attr_arn, revision=options.attr_latest_revision_revision
            ),
            client_authentication=msk.CfnCluster.ClientAuthenticationProperty(
                sasl=msk.CfnCluster.SaslProperty(scram=msk.CfnCluster.ScramProperty(enabled=True)),
                unauthenticated=msk.CfnCluster.UnauthenticatedProperty(enabled=False),
            ),
            encryption_info=msk.CfnCluster.EncryptionInfoProperty(
                encryption_at_rest=msk.CfnCluster.EncryptionAtRestProperty(data_volume_kms_key_id=self.key.key_arn),
                encryption_in_transit=msk.CfnCluster.EncryptionInTransitProperty(client_broker="TLS", in_cluster=True),
            ),
            enhanced_monitoring="PER_BROKER",
            logging_info=msk.CfnCluster.LoggingInfoProperty(
                broker_logs=msk.CfnCluster.BrokerLogsProperty(
                    cloud_watch_logs=msk.CfnCluster.CloudWatchLogsProperty(enabled=True, log_group=log.log_group_name)
                )
            ),
        )
        made.apply_removal_policy(RemovalPolicy.RETAIN)
        msk.CfnBatchScramSecret(
            self, "KafkaUser", cluster_arn=made.attr_arn, secret_arn_list=[self.secrets["kafka"].secret_arn]
        )
        self._tell("KafkaBootstrap", self._bootstrap(made), "FRAUD_KAFKA_BOOTSTRAP")

    def _bootstrap(self, made: msk.CfnCluster) -> str:
        """The brokers' addresses, which CloudFormation does not tell: a function asks for them once."""
        asked = custom_resources.AwsSdkCall(
            service="Kafka",
            action="getBootstrapBrokers",
            parameters={"ClusterArn": made.attr_arn},
            physical_resource_id=custom_resources.PhysicalResourceId.of("tollgate-bootstrap"),
        )
        found = custom_resources.AwsCustomResource(
            self,
            "KafkaAddresses",
            on_update=asked,
            install_latest_aws_sdk=False,
            policy=custom_resources.AwsCustomResourcePolicy.from_statements(
                [iam.PolicyStatement(actions=["kafka:GetBootstrapBrokers"], resources=[made.attr_arn])]
            ),
        )
        return found.get_response_field("BootstrapBrokerStringSaslScram")

    # --- the jobs' volume, images ------------------------------------------------------------------------------------
    def _volume(self) -> None:
        """What several nodes write to: the claim `jobs`."""
        made = efs.FileSystem(
            self,
            "Jobs",
            vpc=self._network.vpc,
            vpc_subnets=ec2.SubnetSelection(subnet_group_name=STORES),
            security_group=self._let_in("Jobs", PORTS["efs"]),
            encrypted=True,
            kms_key=self.key,
            enable_automatic_backups=True,
            throughput_mode=efs.ThroughputMode.ELASTIC,
            removal_policy=RemovalPolicy.RETAIN,
        )
        self._tell("JobsVolume", made.file_system_id, "fileSystemId of the storage class of the claim `jobs`")

    def _images(self, image: str) -> None:
        made = ecr.Repository(
            self,
            f"Image-{image}",
            repository_name=f"tollgate/{image}",
            image_scan_on_push=True,
            image_tag_mutability=ecr.TagMutability.IMMUTABLE,
            encryption=ecr.RepositoryEncryption.KMS,
            encryption_key=self.key,
            lifecycle_rules=[ecr.LifecycleRule(max_image_count=50)],
            removal_policy=RemovalPolicy.RETAIN,
        )
        self._tell(f"Image{image.capitalize()}", made.repository_uri, f"newName of tollgate/{image}")

    # --- what they have in common ------------------------------------------------------------------------------------
    def _let_in(self, name: str, port: int) -> ec2.SecurityGroup:
        """A group that the cluster's members reach at one port, and that reaches nobody."""
        made = ec2.SecurityGroup(
            self,
            f"{name}Group",
            vpc=self._network.vpc,
            description=f"{name}: pods and nodes of the cluster alone",
            allow_all_outbound=False,
        )
        made.add_ingress_rule(self._cluster.members, ec2.Port.tcp(port), "pods and nodes")
        return made

    def _tell(self, name: str, value: str, meaning: str) -> None:
        CfnOutput(self, name, value=value, description=meaning)


PRIVATE: dict[str, Any] = {
    "block_public_access": s3.BlockPublicAccess.BLOCK_ALL,
    "enforce_ssl": True,
    "minimum_tls_version": 1.2,
    "removal_policy": RemovalPolicy.RETAIN,
}
"""Of every bucket."""
