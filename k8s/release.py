"""A new version of the service, and back: the idle colour gets it, is looked at, and then the payments.

    python -m k8s.release switch --image registry.example/tollgate/service:0.2.0
    python -m k8s.release back                        the colour before, at once
    python -m k8s.release canary --steps 0.05 0.2 0.5   payments to the challenger model, step by step

The colour that was in force keeps running until the next release, so that the way back is one patch. A release that
fails a look goes back by itself, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

NAMESPACE = "tollgate"
COLOURS = ("blue", "green")
OVERLAYS = Path(__file__).resolve().parent / "overlays"
LABEL = "tollgate/colour"
PROBE = """
import json
from urllib.error import HTTPError
from urllib.request import urlopen
try:
    ready = urlopen("http://127.0.0.1:3000/readyz", timeout=5).status == 200
except HTTPError:
    ready = False
lines = urlopen("http://127.0.0.1:3000/metrics", timeout=5).read().decode().splitlines()
def total(name):
    counted = (line for line in lines if line.startswith(name) and "invalid_input" not in line)
    return sum(float(line.rsplit(" ", 1)[1]) for line in counted)
found = {"errors": total("model_errors_total"), "payments": total("total_transactions_total")}
print(json.dumps({"ready": ready, **found}))
"""
"""What a pod says of itself, asked from inside it: neither a proxy nor the network is in between."""


class ReleaseFailed(RuntimeError):
    """A step did not come about, or what came about is not good; the message says which and why."""


def kubectl(*words: str, given: str | None = None) -> str:
    """What kubectl says, with `given` on its standard input. Raises `ReleaseFailed` with its own words."""
    command = ("kubectl", "--namespace", NAMESPACE, *words)
    done = subprocess.run(command, input=given, capture_output=True, text=True)  # noqa: S603 - our own
    if done.returncode:
        raise ReleaseFailed(f"kubectl {' '.join(words[:3])}: {(done.stderr or done.stdout).strip()}")
    return done.stdout


@dataclass(frozen=True)
class Look:
    """What the pods of a colour have counted together: failed payments, and all."""

    errors: float
    payments: float


@dataclass
class Release:
    """Releases in one cluster. `say` tells a person what is done; `pause` sleeps, in seconds."""

    ask: Callable[..., str] = kubectl
    say: Callable[[str], None] = print
    pause: Callable[[float], None] = time.sleep
    error_share: float = 0.01
    rollout: str = "10m"

    def in_force(self) -> str:
        """The colour that payments go to. Raises `ReleaseFailed` if that is none of the two."""
        found = json.loads(self.ask("get", "service", "service", "-o", "json"))["spec"]["selector"].get(LABEL)
        if found not in COLOURS:
            raise ReleaseFailed(f"Service 'service' leads to colour {found!r}; must be one of {', '.join(COLOURS)}.")
        return str(found)

    def switch(self, image: str, watch: float, every: float = 5.0) -> str:
        """Give the idle colour this image, look at it, let the payments go there and watch it; returns the colour.

        `watch`, `every`: seconds. Raises `ReleaseFailed`; the payments are then where they were before.
        """
        before = self.in_force()
        idle = next(colour for colour in COLOURS if colour != before)
        self.say(f"{before} is in force; {idle} gets {image}.")
        self.ask("apply", "-f", "-", given=self._rendered(idle, image, self._replicas(before)))
        self._roll_out(idle)
        start = self.look(idle)
        self._lead_to(idle)
        try:
            self._watch(idle, start, watch, every)
        except ReleaseFailed:
            self._lead_to(before)
            self.say(f"Back to {before}.")
            raise
        self.say(f"{idle} is in force. `python -m k8s.release back` leads to {before} again.")
        return idle

    def back(self) -> str:
        """Lead the payments to the other colour, once it has as many pods and all are ready; returns it."""
        now = self.in_force()
        other = next(colour for colour in COLOURS if colour != now)
        self.look(other)
        if (wanted := self._replicas(now)) > self._replicas(other):  # it has been idle, and is the smaller for it
            self.ask("scale", f"statefulset/service-{other}", f"--replicas={wanted}")
            self._roll_out(other)
        self._lead_to(other)
        return other

    def canary(self, steps: Sequence[float], watch: float, every: float = 5.0) -> None:
        """Raise the challenger's share step by step, and take all of it back where payments fail meanwhile.

        The service's own guard takes out a challenger that fails or is slow within a minute; this sees all payments.
        """
        colour = self.in_force()
        for share in steps:
            start = self.look(colour)
            self._traffic("--weight", f"{share:g}")
            try:
                self._watch(colour, start, watch, every)
            except ReleaseFailed:
                self._traffic("--weight", "0")
                raise
        self.say("The challenger holds. `python -m training.promote promote` makes it champion.")

    def look(self, colour: str) -> Look:
        """Ask each pod of a colour how it is. Raises `ReleaseFailed` if there is none or one is not ready."""
        names = self.ask("get", "pods", "-l", f"app.kubernetes.io/name=service,{LABEL}={colour}", "-o", "name").split()
        found = []
        for name in names:
            said = json.loads(self.ask("exec", name, "-c", "service", "--", "python", "-c", PROBE))
            if not said["ready"]:
                raise ReleaseFailed(f"{name} of {colour} is not ready.")
            found.append(Look(said["errors"], said["payments"]))
        if not found:
            raise ReleaseFailed(f"There are no pods of {colour}; a release that was never made cannot be led to.")
        return Look(sum(one.errors for one in found), sum(one.payments for one in found))

    def _watch(self, colour: str, start: Look, seconds: float, every: float) -> None:
        for _ in range(max(1, round(seconds / every))):
            self.pause(every)
            now = self.look(colour)
            errors, payments = now.errors - start.errors, now.payments - start.payments
            if errors > self.error_share * max(payments + errors, 1.0):
                failed = f"{errors:g} of {payments + errors:g} payments"
                raise ReleaseFailed(f"{colour} failed {failed}, more than {self.error_share:.1%}.")

    def _rendered(self, colour: str, image: str, replicas: int) -> str:
        """The overlay of a colour with this image, and at once as many pods as payments are used to."""
        found = list(yaml.safe_load_all(self.ask("kustomize", str(OVERLAYS / f"prod-{colour}"))))
        [workload] = [one for one in found if one["kind"] == "StatefulSet"]
        workload["spec"]["replicas"] = replicas
        workload["spec"]["template"]["spec"]["containers"][0]["image"] = image
        return yaml.safe_dump_all(found)

    def _replicas(self, colour: str) -> int:
        return int(self.ask("get", f"statefulset/service-{colour}", "-o", "jsonpath={.spec.replicas}"))

    def _roll_out(self, colour: str) -> None:
        self.ask("rollout", "status", f"statefulset/service-{colour}", f"--timeout={self.rollout}")

    def _lead_to(self, colour: str) -> None:
        patch = json.dumps({"spec": {"selector": {LABEL: colour}}})
        self.ask("patch", "service", "service", "--type=merge", "-p", patch)
        self.say(f"Payments go to {colour}.")

    def _traffic(self, *words: str) -> None:
        self.say(self.ask("exec", "deployment/monitor", "--", "python", "-m", "monitoring.traffic", *words).strip())


def main(arguments: Sequence[str] | None = None, release: Release | None = None) -> int:
    """The command line; returns the exit code: 0 done, 1 taken back or not come about."""
    parser = argparse.ArgumentParser(prog="python -m k8s.release", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--watch", type=float, default=300.0, help="seconds of payments before it is good")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("switch", help="a new image").add_argument("--image", required=True)
    commands.add_parser("back", help="the colour before")
    commands.add_parser("canary", help="the challenger, by share").add_argument(
        "--steps", type=float, nargs="+", default=[0.05, 0.2, 0.5], help="shares of the payments, one after the other"
    )
    given, release = parser.parse_args(arguments), release or Release()
    try:
        if given.command == "switch":
            release.switch(given.image, given.watch)
        elif given.command == "back":
            release.back()
        else:
            release.canary(given.steps, given.watch)
    except ReleaseFailed as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
