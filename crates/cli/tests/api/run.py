"""Tries the whole API from an OpenAPI document, with things that exist, and judges every answer.

    run.py --api URL --token TOKEN --document URL|FILE --app NAME --deployed NAME --calls N [--seed N]
           [--prefix /v1] [--known FILE]

Fails when an answer is one that the document does not allow, when one is a 5xx (501 where it is
documented), when one does not come, or when fewer than half of the calls are 2xx on existing apps
and Machines. `--known FILE` is a Markdown page whose list items name what another's document
leaves out or has wrong; a finding that begins with one of them is let pass.
"""

import argparse
import collections
import json
import random
import sys
import time

import requests
import schemathesis
from hypothesis import HealthCheck, Phase, Verbosity, given, seed, settings
from schemathesis import GenerationMode
from schemathesis.checks import load_all_checks
from schemathesis.specs.openapi.checks import (
    content_type_conformance, response_headers_conformance, response_schema_conformance)

from fleet import BASE, IMAGE, Fleet

LIMIT = 70
STREAMS = ("/events", "/deployments/{id}/events")
UPGRADES = ("/session", "/tunnel")
# What would wear out the machine that this runs on, rather than the API.
WEIGHTS = {
    "Apps_create": 0.3, "Orgs_create": 0.3, "Machines_create": 0.7, "Machines_update": 0.5,
    "Machines_delete": 0.4, "Machines_restart": 0.5, "Machines_suspend": 0.3, "Machines_stop": 0.5,
    "Volumes_create": 0.2, "Volume_delete": 0.2, "Volumes_extend": 0.2, "createVolumeSnapshot": 0.2,
    "Images_import": 0.1, "Images_prune": 0.1, "Images_resolve": 0.1, "App_Certificates_check": 0.1,
    "Platform_slots_lost": 0.1, "Apps_delete": 0.1, "Machines_signal": 0.4, "Machines_wait": 0.5,
}
# Endpoints about an app that read, and are cheap: most calls go here.
OFTEN = 3.0


class Trial:
    def __init__(self, arguments):
        self.arguments = arguments
        self.rng = random.Random(arguments.seed)
        self.fleet = Fleet(arguments.api, arguments.token, arguments.app, arguments.deployed, self.rng)
        self.statuses = collections.Counter()
        self.by_operation = collections.defaultdict(collections.Counter)
        self.good = 0
        self.calls = 0
        self.slowest = (0.0, "")
        self.findings = {}

    # What a call is given.

    def prepare(self, case):
        path, method, rng = case.operation.path, case.method.upper(), self.rng
        if rng.random() < 0.93:
            self.aim(case)
        if rng.random() < 0.8:
            self.body(case, path, method)
        one = (case.path_parameters or {}).get("machine") or (case.path_parameters or {}).get("machine_id")
        nonce = self.fleet.nonces.get(one)
        if case.headers is not None:
            case.headers.pop("fly-machine-lease-nonce", None)
            if nonce and rng.random() < 0.95:
                case.headers["fly-machine-lease-nonce"] = nonce
        query = case.query if isinstance(case.query, dict) else {}
        if path.endswith("/wait"):
            query["timeout"] = "1"
            query.pop("version", None)
            query.pop("instance_id", None)
            if rng.random() < 0.8:
                query.pop("from_event_id", None)
                query["state"] = self.fleet.states.get(one, "started")
        if path.endswith("/logs"):
            query.pop("follow", None)
        if rng.random() < 0.7:
            # What is given by others: only they know one that is right.
            for name in ("cursor", "version", "min_version", "machine_version", "updated_at", "sort_by", "order",
                         "next_token", "since", "updated_after", "current_version"):
                query.pop(name, None)
            if query.get("limit") == 0:
                query["limit"] = 5
        if path.endswith("/images/resolve"):
            # Any other name is asked of a registry, and there is none in reach.
            query["name"] = IMAGE
        case.query = query

    def aim(self, case):
        fleet, path, method = self.fleet, case.operation.path, case.method.upper()
        parameters = dict(case.path_parameters or {})
        words = {
            "slug": "personal", "org_slug": "personal", "slot": fleet.slot, "name": "KEY", "secret_name": "KEY",
            "key": self.rng.choice(["fly_process_group", "role"]), "hostname": "www.example.com",
        }
        deployed = "/deployments" in path or "/releases" in path
        destroys = method == "DELETE" and path.endswith(("/apps/{app}", "/apps/{app_name}", "/orgs/{slug}"))
        for name in parameters:
            if destroys and name in ("app", "app_name", "slug"):
                parameters[name] = self.spare(name)
            elif name in ("app", "app_name"):
                parameters[name] = fleet.deployed if deployed else fleet.app
            elif name in ("machine", "machine_id"):
                wanted = None
                if path.endswith(("/ps", "/memory", "/reclaim", "/exec", "/stop", "/suspend", "/signal", "/restart")):
                    wanted = ("started",)
                parameters[name] = fleet.machine(wanted)
            elif name in ("volume", "volume_id"):
                parameters[name] = self.rng.choice(fleet.volumes)
            elif name == "snapshot":
                of = fleet.snapshots.get(parameters.get("volume")) or ["vs_0123456789abcdef"]
                parameters[name] = of.pop() if len(of) > 1 else of[0]
            elif name == "version":
                parameters[name] = str(fleet.release)
            elif name == "id" and deployed:
                parameters[name] = fleet.deployment
            elif name == "id" and "/tokens" in path:
                parameters[name] = fleet.tokens.pop() if fleet.tokens else "none"
            elif name in words:
                parameters[name] = words[name]
        case.path_parameters = parameters

    def spare(self, name):
        fresh = self.fleet.fresh("spare-")
        if name == "slug":
            return self.fleet.must("POST", "/v1/orgs", json={"name": fresh})["slug"]
        self.fleet.must("POST", "/v1/apps", json={"name": fresh})
        return fresh

    def body(self, case, path, method):
        """Puts into a body what makes it one that succeeds; the rest stays as it was made."""
        rng, fleet, body = self.rng, self.fleet, case.body
        keep = dict(body) if isinstance(body, dict) else {}
        config = keep.get("config") if isinstance(keep.get("config"), dict) else {}
        few = {key: config[key] for key in rng.sample(sorted(config), min(len(config), 2))}
        names = {
            "Apps_create": {"name": fleet.fresh("fuzz-"), "app_name": None, "org_slug": "personal", "network": None},
            "Orgs_create": {"name": fleet.fresh("Fuzz "), "slug": None},
            "Machines_exec": {"command": ["/testapp", "env"], "cmd": None, "container": None, "timeout": 10},
            "Machines_signal": {"signal": rng.choice(["SIGHUP", 1, "USR1"])},
            "Machines_set_memory_limit": {"limit_mb": rng.randint(64, 256)},
            "Machines_reclaim_memory": {"amount_mb": 1},
            "Machines_create_lease": {"ttl": rng.randint(1, 3)},
            "Volumes_create": {"name": "data", "size_gb": 1, "snapshot_id": None, "source_volume_id": None, "region": None},
            "Volumes_extend": {"size_gb": rng.randint(1, 2)},
            "Volumes_update": {"snapshot_retention": 5},
            "Secret_create": {"value": "x"},
            "Secrets_update": {"values": {fleet.rng.choice(["KEY", "OTHER"]): "x"}},
            "Deployments_create": {"source": {"kind": "restart", "description": "tried"}, "dry_run": True, "options": {}},
            "App_Certificates_acme_create": {"hostname": "www.example.com"},
            "App_Tokens_create": {"kind": "deploy", "expiry": "1h", "group": None, "commands": None},
            "Org_Tokens_create": {"kind": "org", "expiry": "1h", "group": None, "commands": None},
            "App_create_deploy_token": {"expiry": "1h"},
            "Tokens_authenticate": {"header": f"Bearer {self.arguments.token}"},
            "Machines_stop": {"signal": rng.choice(["SIGTERM", "SIGKILL"]), "timeout": "2s"},
            "Machines_restart": {"signal": "SIGKILL", "timeout": "2s", "force_stop": True},
            "Machines_upsert_metadata": {"value": "x", "machine_version": None, "updated_at": None},
            "Machines_update_metadata": {"metadata": {"role": "db"}, "machine_version": None, "updated_at": None},
            "Machines_patch_metadata": {"metadata": {"role": "db"}, "machine_version": None, "updated_at": None},
        }
        known = names.get(case.operation.definition.raw.get("operationId"))
        if case.operation.definition.raw.get("operationId") in ("Machines_create", "Machines_update"):
            env = {"A": "b"} if rng.random() < 0.5 else {}
            extra = few if rng.random() < 0.4 else {}
            for name in ("mounts", "guest", "image"):
                extra.pop(name, None)
            known = {"config": {**extra, **BASE, "env": env}, "name": None, "region": None, "lease_ttl": None,
                     "current_version": None, "min_secrets_version": None}
        if known:
            case.body = {**{key: value for key, value in keep.items() if key not in known},
                         **{key: value for key, value in known.items() if value is not None}}
            if case.media_type is None:
                case.media_type = "application/json"
        query = case.query if isinstance(case.query, dict) else {}
        for name in list(query):
            if known is not None:
                query.pop(name)
        case.query = query
        if isinstance(case.body, dict) and isinstance(case.body.get("config"), dict):
            case.body["config"]["image"] = IMAGE
        if isinstance(case.body, dict) and isinstance(case.body.get("size_gb"), int) and 2 < case.body["size_gb"] < 10**5:
            case.body["size_gb"] = 2

    # What came of it.

    def call(self, case):
        path = case.operation.path
        headers = {"Authorization": f"Bearer {self.arguments.token}"}
        if case.operation.definition.raw.get("security") == [] and self.rng.random() < 0.5:
            headers = {}
        begun = time.monotonic()
        try:
            if path.endswith(STREAMS) and case.method.upper() == "GET" and "/machines/" not in path:
                return self.stream(case, headers)
            response = case.call(headers=headers, timeout=LIMIT)
        except requests.exceptions.RequestException as error:
            self.found(case, f"no answer: {type(error).__name__}", str(error))
            return None
        took = time.monotonic() - begun
        self.slowest = max(self.slowest, (took, case.operation.label))
        return response

    def stream(self, case, headers):
        """Reads the head of a stream that does not end by itself, and what comes first."""
        arguments = case.as_transport_kwargs(base_url=self.arguments.api, headers=headers)
        arguments.pop("timeout", None)
        with self.fleet.session.request(**arguments, timeout=LIMIT, stream=True) as response:
            if response.ok:
                kind = response.headers.get("content-type", "")
                if not kind.startswith("text/event-stream"):
                    self.found(case, "a stream of another type", kind)
                next(response.iter_content(64), b"")
            else:
                response.content
            self.note(case, response.status_code)
            if str(response.status_code) not in case.operation.definition.raw["responses"]:
                self.found(case, f"undocumented status {response.status_code}", response.text[:300])
        return None

    def note(self, case, status):
        self.calls += 1
        self.statuses[status] += 1
        self.by_operation[case.operation.label][status] += 1
        parameters = case.path_parameters or {}
        app = parameters.get("app") or parameters.get("app_name")
        if 200 <= status < 300 and app in (self.fleet.app, self.fleet.deployed):
            self.good += 1

    def found(self, case, what, detail):
        key = f"{case.operation.label}: {what}"
        known = key in self.findings
        times, first = self.findings.get(key, (0, detail))
        self.findings[key] = (times + 1, first)
        if not known:
            print(f"FOUND {key}\n      {detail}", flush=True)

    def one(self, case):
        self.prepare(case)
        response = self.call(case)
        if response is None:
            return
        status = response.status_code
        self.note(case, status)
        documented = case.operation.definition.raw["responses"]
        sent = f"{response.request.method} {response.request.url} {response.request.body!r:.300}"
        if status >= 500 and not (status == 501 and "501" in documented):
            self.found(case, f"status {status}", f"{sent}\n      {response.text:.300}")
        elif str(status) not in documented and "default" not in documented:
            self.found(case, f"undocumented status {status}", f"{sent}\n      {response.text:.300}")
        elif status != 101:
            self.conforms(case, response, sent)
        try:
            self.fleet.heard(case, response)
        except (KeyError, ValueError, TypeError) as error:
            self.found(case, "an answer that cannot be read", f"{sent}\n      {error!r} {response.text:.200}")

    def conforms(self, case, response, sent):
        checks = [response_schema_conformance, response_headers_conformance]
        if response.content:
            checks.append(content_type_conformance)
        try:
            case.validate_response(response, checks=checks)
        except BaseException as failure:  # A group of failures is no Exception of its own.
            if isinstance(failure, (KeyboardInterrupt, SystemExit)):
                raise
            for each in getattr(failure, "exceptions", [failure]):
                title = getattr(each, "title", type(each).__name__)
                text = str(getattr(each, "message", each))
                self.found(case, title, f"{sent}\n      {text[:500]}")

    # All of it.

    def weight(self, operation):
        raw = operation.definition.raw
        of = WEIGHTS.get(raw.get("operationId"))
        if of is not None:
            return of
        about = "{app}" in operation.path or "{app_name}" in operation.path
        refused = not any(status < "400" for status in raw["responses"]) or "/certificates" in operation.path
        if operation.path.endswith(UPGRADES) or "101" in raw["responses"]:
            return 0.0
        if about and not refused:
            return OFTEN if operation.method.upper() == "GET" else 1.5
        return 0.1

    def run(self, schema):
        operations = [result.ok() for result in schema.get_all_operations()]
        weights = {operation.label: self.weight(operation) for operation in operations}
        whole = sum(weights.values())
        batch = 10
        turns = []
        for operation in operations:
            calls = self.arguments.calls * weights[operation.label] / whole
            if weights[operation.label] > 0:
                turns.extend([operation] * max(1, round(calls / batch)))
        self.rng.shuffle(turns)
        size = max(3, round(self.arguments.calls / len(turns)) + 1)
        while self.calls < self.arguments.calls:
            for number, operation in enumerate(turns):
                self.turn(operation, size, self.arguments.seed + number)
                if self.calls >= self.arguments.calls:
                    break

    def turn(self, operation, size, number):
        mode = GenerationMode.NEGATIVE if self.rng.random() < 0.15 else GenerationMode.POSITIVE
        for mode in (mode, GenerationMode.POSITIVE):
            strategy = operation.as_strategy(generation_mode=mode)

            @seed(number)
            @settings(max_examples=size, deadline=None, database=None, phases=[Phase.generate],
                      suppress_health_check=list(HealthCheck), verbosity=Verbosity.quiet)
            @given(case=strategy)
            def each(case):
                if time.monotonic() - self.fleet.looked > 2:
                    self.fleet.look()
                self.one(case)

            try:
                each()
                return
            except Exception as error:
                # Not every endpoint can be asked wrongly.
                if mode is GenerationMode.POSITIVE:
                    raise RuntimeError(f"{operation.label}: {error}") from error

    def verdict(self, known):
        print(f"\n{self.calls} calls, {self.good} of them 2xx on existing apps and Machines")
        print("statuses: " + ", ".join(f"{status}: {count}" for status, count in sorted(self.statuses.items())))
        print(f"the slowest took {self.slowest[0]:.1f} s: {self.slowest[1]}")
        if self.arguments.verbose or self.good * 2 < self.calls:
            for label, counts in sorted(self.by_operation.items()):
                print(f"  {label}: {dict(counts)}")
        new = {key: value for key, value in self.findings.items() if not any(covers(one, key) for one in known)}
        for key, (times, detail) in sorted(new.items()):
            print(f"BAD {key} ({times} times)\n    {detail}")
        if len(self.findings) > len(new):
            print(f"{len(self.findings) - len(new)} kinds of findings are on the list of what is known")
        if self.good * 2 < self.calls:
            print("BAD fewer than half of the calls are 2xx on existing apps and Machines")
        return not new and self.good * 2 >= self.calls


def load(arguments):
    if "://" in arguments.document:
        text = requests.get(arguments.document, timeout=LIMIT).text
    else:
        with open(arguments.document, encoding="utf-8") as file:
            text = file.read()
    document = json.loads(text)
    if arguments.validate:
        from openapi_spec_validator import validate
        validate(document)
        print("the document is valid OpenAPI " + document["openapi"])
    schema = schemathesis.openapi.from_dict(document)
    schema.config.update(base_url=arguments.api + arguments.prefix)
    return document, schema


def prove(document, arguments, fleet):
    """Fails unless an answer that a document does not allow is found to be so."""
    wrong = json.loads(json.dumps(document))
    wrong["components"]["schemas"]["Machine"]["properties"]["created_at"] = {"type": "integer"}
    schema = schemathesis.openapi.from_dict(wrong)
    schema.config.update(base_url=arguments.api + arguments.prefix)
    show = [each.ok() for each in schema.get_all_operations()]
    show = next(each for each in show if each.definition.raw["operationId"] == "Machines_show")
    case = show.Case(path_parameters={"app": fleet.app, "app_name": fleet.app, "machine": fleet.machine(), "machine_id": fleet.machine()})
    response = case.call(headers={"Authorization": f"Bearer {arguments.token}"}, timeout=LIMIT)
    try:
        case.validate_response(response, checks=[response_schema_conformance])
    except BaseException as failure:
        if "created_at" in str(failure):
            return
        raise
    sys.exit("an answer that the document does not allow was let pass: nothing here means anything")


def covers(item, key):
    """Returns whether an item of the list is about a finding; `*` stands for any endpoint."""
    if item.startswith("*: "):
        return key.split(": ", 1)[1].startswith(item[3:])
    return key.startswith(item)


def listed(path):
    """Returns the keys of a Markdown list: what stands in backticks at the start of each item."""
    if not path:
        return []
    with open(path, encoding="utf-8") as file:
        lines = [line for line in file if line.startswith("- `")]
    return [line.split("`")[1] for line in lines]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("api", "token", "document", "app", "deployed"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--calls", type=int, required=True)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--prefix", default="")
    parser.add_argument("--known", default="")
    parser.add_argument("--validate", action="store_true")
    parser.add_argument("--verbose", action="store_true")
    arguments = parser.parse_args()
    load_all_checks()
    document, schema = load(arguments)
    trial = Trial(arguments)
    if not arguments.known:
        prove(document, arguments, trial.fleet)
    trial.run(schema)
    return 0 if trial.verdict(listed(arguments.known)) else 1


if __name__ == "__main__":
    sys.exit(main())
