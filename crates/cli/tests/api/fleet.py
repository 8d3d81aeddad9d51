"""What exists while the API is tried: an app with Machines and volumes, kept alive.

Whatever a call has destroyed is made anew, so that most calls meet things that exist.
"""

import random
import time

import requests

IMAGE = "testapp"
BASE = {"image": IMAGE, "guest": {"cpu_kind": "shared", "cpus": 1, "memory_mb": 256},
        "metadata": {"fly_process_group": "web", "role": "db"}}
MACHINES = 3
VOLUMES = 2


class Fleet:
    """Apps, Machines, volumes and the rest, by the names that paths have for them."""

    def __init__(self, api, token, app, deployed, rng):
        self.api, self.app, self.deployed, self.rng = api, app, deployed, rng
        self.session = requests.Session()
        self.session.headers["Authorization"] = f"Bearer {token}"
        self.states, self.nonces = {}, {}
        self.volumes, self.snapshots, self.tokens = [], {}, []
        self.looked = 0.0
        self.count = 0
        self.deployment = self.release = None
        self.make_app()
        self.look()

    def ask(self, method, path, **kwargs):
        return self.session.request(method, self.api + path, timeout=60, **kwargs)

    def must(self, method, path, **kwargs):
        answer = self.ask(method, path, **kwargs)
        if not answer.ok:
            raise RuntimeError(f"{method} {path}: {answer.status_code} {answer.text}")
        return answer.json() if answer.content else None

    def at(self, rest):
        return f"/v1/apps/{self.app}{rest}"

    def make_app(self):
        if self.ask("GET", self.at("")).status_code == 404:
            self.must("POST", "/v1/apps", json={"name": self.app})
        self.must("POST", self.at("/secrets/KEY"), json={"value": "hidden"})

    def look(self):
        """Reads what there is, and makes what is missing."""
        if self.ask("GET", self.at("")).status_code == 404:
            self.make_app()
        machines = self.must("GET", self.at("/machines"))
        self.states = {m["id"]: m["state"] for m in machines if m["state"] not in ("destroying", "destroyed")}
        for extra in list(self.states)[MACHINES:]:
            self.remove(extra)
        sick = [one for one, state in self.states.items() if state not in ("started", "stopped", "suspended")]
        for one in self.states:
            if self.states[one] in ("stopped", "suspended") and self.rng.random() < 0.7:
                self.ask("POST", self.at(f"/machines/{one}/start"), headers=self.lease(one))
        for one in sick:
            if self.rng.random() < 0.1:
                self.remove(one)
        while len(self.states) < MACHINES:
            self.make_machine()
        volumes = self.must("GET", self.at("/volumes"))
        self.volumes = [v["id"] for v in volumes if v["state"] == "created"]
        for extra in self.volumes[VOLUMES + 2:]:
            self.ask("DELETE", self.at(f"/volumes/{extra}"))
        while len(self.volumes) < VOLUMES:
            made = self.must("POST", self.at("/volumes"), json={"name": "data", "size_gb": 1})
            self.volumes.append(made["id"])
        deployments = self.must("GET", f"/v1/apps/{self.deployed}/deployments")
        self.deployment = deployments[0]["id"]
        self.release = self.must("GET", f"/v1/apps/{self.deployed}/releases")[0]["version"]
        for slot in self.must("GET", "/v1/platform/slots")["slots"]:
            if slot["lost"]:
                self.must("POST", f"/v1/platform/slots/{slot['id']}/back")
            self.slot = slot["id"]
        self.looked = time.monotonic()

    def make_machine(self):
        made = self.must("POST", self.at("/machines"), json={"config": BASE})
        one = made["id"]
        self.ask("GET", self.at(f"/machines/{one}/wait?timeout=20"))
        self.states[one] = "started"
        return one

    def remove(self, one):
        self.states.pop(one, None)
        # A lease that nobody knows the nonce of any more: its Machine is left to expire with it.
        self.ask("DELETE", self.at(f"/machines/{one}?force=true"), headers=self.lease(one))

    def lease(self, one):
        nonce = self.nonces.get(one)
        return {"fly-machine-lease-nonce": nonce} if nonce else {}

    def machine(self, wanted=None):
        of = [one for one, state in self.states.items() if wanted is None or state in wanted]
        return self.rng.choice(of or list(self.states))

    def fresh(self, prefix):
        self.count += 1
        return f"{prefix}{self.count}"

    def heard(self, case, response):
        """Takes note of what a call has changed."""
        path, method = case.operation.path, case.method.upper()
        # Fly's document has other names for the same parts.
        path = path.replace("{machine_id}", "{machine}").replace("{volume_id}", "{volume}")
        path = path.replace("{secret_name}", "{name}").replace("{app_name}", "{app}")
        parameters = case.path_parameters or {}
        one = parameters.get("machine") or parameters.get("machine_id")
        volume = parameters.get("volume") or parameters.get("volume_id")
        if not 200 <= response.status_code < 300:
            return
        body = response.json() if "application/json" in str(response.headers.get("content-type")) else {}
        if path.endswith("/lease"):
            if method == "DELETE":
                self.nonces.pop(one, None)
            else:
                self.nonces[one] = body["data"]["nonce"]
        elif method == "POST" and path.endswith("/machines"):
            if body.get("nonce"):
                self.nonces[body["id"]] = body["nonce"]
            self.remove(body["id"])
        elif path.endswith("/machines/{machine}") and method != "GET":
            if body.get("nonce"):
                self.nonces[one] = body["nonce"]
            if method == "DELETE":
                self.states.pop(one, None)
            else:
                # It may have been given a program that does not run.
                self.remove(one)
            while len(self.states) < MACHINES:
                self.make_machine()
        elif path.endswith(("/start", "/restart")):
            self.states[one] = "started"
        elif path.endswith(("/stop", "/suspend", "/signal")):
            if path.endswith("/signal"):
                self.looked = 0.0
            else:
                self.states[one] = "stopped"
            self.ask("GET", self.at(f"/machines/{one}/wait?state=settled&timeout=10"))
        elif method == "POST" and path == "/v1/apps":
            self.ask("DELETE", f"/v1/apps/{case.body['name']}")
        elif method == "POST" and path == "/v1/orgs":
            self.ask("DELETE", f"/v1/orgs/{body['slug']}")
        elif method == "POST" and path.endswith("/tokens"):
            self.tokens.append(body["id"])
        elif method == "POST" and path.endswith("/snapshots"):
            self.snapshots.setdefault(volume, []).append(body["id"])
        elif method == "DELETE" and path.endswith("/secrets/{name}"):
            self.must("POST", self.at("/secrets/KEY"), json={"value": "hidden"})
        elif path.endswith("/volumes/{volume}") and method == "DELETE":
            self.looked = 0.0
        elif path.endswith("/lost"):
            self.must("POST", path.replace("{slot}", self.slot).replace("/lost", "/back"))
