"""What the stacks cost in a month, part by part: `python -m k8s.aws.costs [--peak 1000 10000]`.

List prices on demand, in US dollars, as remembered of AWS's public price lists for Frankfurt (eu-central-1) and checked
against nothing: for the order of magnitude. Put the prices of your region and contract into `PRICES`.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Final

from k8s.aws.sizes import ZONES, Sizes, sizes
from k8s.capacity import DAY, MEASURED, Terms

AS_OF: Final = "2025"
"""The year that the prices are remembered of."""

HOURS: Final = 730.0
GB: Final = 1e9

PRICES: Final[dict[str, float]] = {
    "EKS control plane, hour": 0.10,
    "c7i.xlarge, hour": 0.2037,
    "c7i.2xlarge, hour": 0.4074,
    "c7i.4xlarge, hour": 0.8148,
    "m7i.2xlarge, hour": 0.4830,
    "kafka.m7g.large, hour": 0.245,
    "kafka.m7g.xlarge, hour": 0.490,
    "MSK storage, GB": 0.119,
    "cache.r7g.large, hour": 0.209,
    "cache.r7g.xlarge, hour": 0.418,
    "cache.r7g.2xlarge, hour": 0.835,
    "cache.r7g.4xlarge, hour": 1.670,
    "cache.r7g.8xlarge, hour": 3.340,
    "cache.r7g.12xlarge, hour": 5.010,
    "cache.r7g.16xlarge, hour": 6.680,
    "m7g.xlarge multi-AZ, hour": 0.776,
    "m7g.2xlarge multi-AZ, hour": 1.552,
    "m7g.4xlarge multi-AZ, hour": 3.104,
    "RDS gp3 storage multi-AZ, GB": 0.274,
    "RDS backup beyond the database's size, GB": 0.095,
    "EBS gp3, GB": 0.0952,
    "EFS, GB": 0.36,
    "S3, GB": 0.0245,
    "NAT gateway, hour": 0.052,
    "ALB, hour": 0.027,
    "ALB capacity unit, hour": 0.008,
    "between zones, GB each way": 0.01,
    "KMS key": 1.0,
    "secret": 0.40,
    "logs taken in, GB": 0.63,
}
"""US dollars. Valkey's nodes are a fifth below Redis's."""

ROOT_DISK: Final = 80
ARTIFACTS: Final = 100
JOBS: Final = 100
LOGS: Final = 100
"""Assumed GB: of a node's disk, in the bucket, on the jobs' volume, of logs a month."""


def parts(asked: Sizes) -> dict[str, float]:
    """What each part costs in a month; money in US dollars."""
    hourly = {name.removesuffix(", hour"): price * HOURS for name, price in PRICES.items() if name.endswith(", hour")}
    nodes = asked.service_nodes + asked.jobs_nodes
    crossing = traffic(asked.peak)
    return {
        "EKS: control plane": hourly["EKS control plane"],
        f"EC2: {asked.service_nodes} {asked.service_node} for the service": asked.service_nodes
        * hourly[asked.service_node],
        f"EC2: {asked.jobs_nodes} {asked.jobs_node} for all else": asked.jobs_nodes * hourly[asked.jobs_node],
        "EBS: the nodes' disks": nodes * ROOT_DISK * PRICES["EBS gp3, GB"],
        f"ElastiCache: {asked.cache_nodes} {asked.cache_node}": asked.cache_nodes * hourly[asked.cache_node],
        f"MSK: {asked.brokers} {asked.broker}": asked.brokers * hourly[asked.broker],
        f"MSK: {asked.broker_disk:,} GB each": asked.brokers * asked.broker_disk * PRICES["MSK storage, GB"],
        f"RDS: {asked.database} in two zones": hourly[f"{asked.database} multi-AZ"],
        f"RDS: {asked.database_disk:,} GB in two zones": asked.database_disk * PRICES["RDS gp3 storage multi-AZ, GB"],
        "S3, EFS": ARTIFACTS * PRICES["S3, GB"] + JOBS * PRICES["EFS, GB"],
        "NAT gateways": ZONES * hourly["NAT gateway"],
        "ALB": hourly["ALB"] + capacity_units(asked.peak) * hourly["ALB capacity unit"],
        "traffic between zones": crossing * 2 * PRICES["between zones, GB each way"],
        "KMS, Secrets Manager, logs": 2 * PRICES["KMS key"] + 4 * PRICES["secret"] + LOGS * PRICES["logs taken in, GB"],
    }


def capacity_units(peak: float) -> float:
    """The balancer's units on average: one for 1 GB an hour; connections are kept, and rules are few."""
    payment = 2_000.0  # request and answer with their headers; a few hundred bytes of JSON each
    return max(1.0, peak * Terms(peak).average * payment * 3_600 / GB)


def traffic(peak: float) -> float:
    """GB a month that cross zones: two thirds of what a payment moves between balancer, pod, Redis and Kafka."""
    moved = 2_000 + 4_000 + 2 * MEASURED.payment_message + 2 * MEASURED.kafka_message
    return peak * Terms(peak).average * DAY * 30 * moved * 2 / 3 / GB


def table(peaks: Sequence[float]) -> str:
    """The table of docs/aws.md, as Markdown."""
    lines = []
    for peak in peaks:
        found = parts(sizes(peak))
        lines += [f"| {peak:,.0f} payments/s at the peak | US$ a month |", "|---|--:|"]
        lines += [f"| {name} | {cost:,.0f} |" for name, cost in found.items()]
        lines += [f"| **together** | **{sum(found.values()):,.0f}** |", ""]
    return "\n".join(lines).rstrip()


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m k8s.aws.costs", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--peak", type=float, nargs="+", default=[1_000, 10_000], help="payments a second")
    print(table(parser.parse_args().peak))


if __name__ == "__main__":
    main()
