#!/usr/bin/env python3
"""Side-by-side benchmarks of Hangar; see README.md beside this file."""

import hashlib
import http.client
import io
import json
import os
import re
import shutil
import socket
import ssl
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time

from waits import waits

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
ARCH = os.uname().machine
TARGET = os.path.join(ROOT, "target", f"{ARCH}-unknown-linux-gnu", os.environ.get("HANGAR_BENCH_PROFILE", "release"))
HANGAR = os.path.join(TARGET, "hangar")
TESTAPP = os.path.join(TARGET, "examples", "testapp")
APP = "bench"


def main():
    if os.geteuid() != 0:
        sys.exit("benches need root: containers, namespaces and other people's runtimes")
    if "HANGAR_BENCH_NETNS" not in os.environ:
        os.environ["HANGAR_BENCH_NETNS"] = "1"
        os.execvp("unshare", ["unshare", "--net", sys.executable, os.path.abspath(__file__), *sys.argv[1:]])
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    parts = {"create": create, "first-byte": first_byte, "wake": wake, "rolling": rolling, "memory": memory, "proxy": proxy, "volumes": volumes, "plan": plan, "certificates": certificates, "waits": waits, "api": api}
    wanted = sys.argv[1:] or list(parts)
    for name in wanted:
        with World() as world:
            print(f"== {name}", flush=True)
            parts[name](world)


class World:
    """A server of its own, with the test image imported."""

    def __enter__(self):
        self.folder = tempfile.mkdtemp(prefix="hangar-bench-")
        self.data = os.path.join(self.folder, "data")
        self.env = dict(os.environ, HANGAR_DATA_DIR=self.data)
        log = open(os.path.join(self.folder, "server.log"), "w")
        self.server = subprocess.Popen([HANGAR, "server", "--log-level", "warn"], env=self.env, stdout=log, stderr=log)
        limit = time.time() + 20
        while self.cli("apps", "list", check=False).returncode != 0:
            if time.time() > limit:
                sys.exit("the server does not answer:\n" + open(log.name).read())
            time.sleep(0.05)
        self.token = open(os.path.join(self.data, "token")).read().strip()
        archive = os.path.join(self.folder, "image.tar")
        write_image(archive)
        self.cli("image", "import", archive, "--name", "testapp")
        self.api("POST", "/v1/apps", {"app_name": APP, "org_slug": "personal"})
        return self

    def __exit__(self, *_):
        self.cli("apps", "destroy", APP, "--yes", check=False)
        self.server.terminate()
        self.server.wait(30)
        shutil.rmtree(self.folder, ignore_errors=True)

    def cli(self, *arguments, check=True):
        return subprocess.run([HANGAR, *arguments], env=self.env, capture_output=True, text=True, check=check)

    def api(self, method, path, body=None):
        connection = http.client.HTTPConnection("127.0.0.1", 4280, timeout=90)
        data = None if body is None else json.dumps(body)
        headers = {"authorization": f"Bearer {self.token}", "content-type": "application/json"}
        connection.request(method, path, data, headers)
        answer = connection.getresponse()
        text = answer.read()
        connection.close()
        if answer.status >= 300:
            raise RuntimeError(f"{method} {path}: {answer.status} {text[:300]}")
        return json.loads(text) if text else None

    def create(self, cmd, wait=True, **config):
        config = {"image": "testapp", "init": {"cmd": cmd}, "guest": {"cpu_kind": "shared", "cpus": 1, "memory_mb": 256}, **config}
        machine = self.api("POST", f"/v1/apps/{APP}/machines", {"config": config})
        if wait:
            self.wait(machine["id"], "started")
        return machine

    def wait(self, machine, state):
        self.api("GET", f"/v1/apps/{APP}/machines/{machine}/wait?state={state}&timeout=60")

    def address(self, machine):
        """The IPv4 address of a started Machine: the one route that leads to its interface."""
        limit = time.time() + 10
        while time.time() < limit:
            routes = json.loads(subprocess.run(["ip", "-j", "-4", "route"], capture_output=True, text=True, check=True).stdout)
            for route in routes:
                if route.get("dev", "").startswith("hg" + machine[6:]):
                    return route["dst"]
            time.sleep(0.01)
        raise RuntimeError(f"no route leads to {machine}")


def create(world):
    bundle = runc_bundle(world.folder)
    have_podman = podman_image(world)
    figures = {"hangar create to started": [], "runc run -d": [], "podman run -d": []}
    world.create(["serve"])
    for round_number in range(30):
        figures["hangar create to started"].append(timed(lambda: world.create(["lines", "0", "0"])))
        name = f"bench{round_number}"
        figures["runc run -d"].append(timed(lambda: run(["runc", "run", "-d", "-b", bundle, name])))
        run(["runc", "delete", "-f", name])
        if have_podman and round_number < 10:
            # With the runtime and the control groups that every kind of machine has.
            command = ["podman", "--runtime", "runc", "--cgroup-manager", "cgroupfs", "run", "-d", "--net", "none"]
            command += ["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024", "--name", name, "localhost/hangarbench"]
            try:
                figures["podman run -d"].append(timed(lambda: run(command)))
                run(["podman", "rm", "-f", "-t", "0", name])
            except subprocess.CalledProcessError:
                have_podman = False
    report(figures, "hangar create to started")


def first_byte(world):
    port = {"port": 80, "handlers": ["http"]}
    service = {"protocol": "tcp", "internal_port": 8080, "ports": [port]}
    machine = world.create(["serve"], services=[service])["id"]
    edge = ("127.0.0.1", 80)
    until_answer(edge, "bench.localhost")
    figures = {"hangar start to first byte": [], "the program by hand": []}
    for _ in range(20):
        world.api("POST", f"/v1/apps/{APP}/machines/{machine}/stop", {"signal": "SIGKILL"})
        world.wait(machine, "stopped")

        def start():
            world.api("POST", f"/v1/apps/{APP}/machines/{machine}/start")
            until_answer(edge, "bench.localhost")

        figures["hangar start to first byte"].append(timed(start))
        figures["the program by hand"].append(by_hand())
    report(figures, "hangar start to first byte")


def plan(_world):
    """Reading fly.toml and planning, in a program of their own: no server has part in it."""
    program = os.path.join(TARGET, "examples/plan_bench")
    if not os.path.exists(program):
        print("plan: skipped, needs cargo build --release -p hangar-deploy --example plan_bench")
        return
    print(f"{'Machines':>9} {'groups':>7} {'read':>10} {'first plan':>11} {'a later one':>12} {'memory':>10}")
    for line in subprocess.run([program], capture_output=True, text=True, check=True).stdout.splitlines():
        row = json.loads(line)
        print(
            f"{row['machines']:>9} {row['groups']:>7} {row['parse_ms']:>7.2f} ms {row['first_plan_ms']:>8.2f} ms"
            f" {row['next_plan_ms']:>9.2f} ms {row['plan_kib'] / 1024:>6.1f} MB"
        )


def api(_world):
    """API calls over a real socket, with a host that does at once what it is asked."""
    program = os.path.join(TARGET, "examples/api_bench")
    if not os.path.exists(program):
        print("api: skipped, needs cargo build --release -p hangar-server --example api_bench")
        return
    for line in subprocess.run([program], capture_output=True, text=True, check=True).stdout.splitlines():
        row = json.loads(line)
        machines, call = row.pop("machines"), row.pop("call")
        print(f"{machines:>7} {call:<28} " + " ".join(f"{name} {value:.2f}" for name, value in row.items()))


def wake(world):
    """One request to a Machine that is down, and nothing else: the proxy starts it."""
    port = {"port": 80, "handlers": ["http"]}
    service = {"protocol": "tcp", "internal_port": 8080, "ports": [port]}
    machine = world.create(["serve"], services=[service])["id"]
    edge = ("127.0.0.1", 80)
    until_answer(edge, "bench.localhost")

    def rest(verb, state, body=None):
        world.wait(machine, "started")
        world.api("POST", f"/v1/apps/{APP}/machines/{machine}/{verb}", body)
        world.wait(machine, state)

    def request():
        until_answer(edge, "bench.localhost")

    stopped, at_once, suspended, up, alone = [], [], [], [], []
    for _ in range(40):
        rest("stop", "stopped", {"signal": "SIGKILL"})
        # While what is left of the former run is put away, the next one waits for it.
        at_once.append(timed(request))
        rest("stop", "stopped", {"signal": "SIGKILL"})
        time.sleep(0.2)
        stopped.append(timed(request))
        up.append(timed(request))
        rest("suspend", "suspended")
        suspended.append(timed(request))
        alone.append(by_hand())
    figures = {"from stopped": stopped, "the program by hand": alone, "from suspended": suspended, "while it is up": up, "the moment it has stopped": at_once}
    report(figures, "from stopped")
    middle = {name: statistics.median(values) * 1e3 for name, values in figures.items()}
    over = middle["from stopped"] - middle["the program by hand"]
    print(f"from stopped: {over:.1f} ms over the program's own start")
    print(f"from suspended: {middle['from suspended'] - middle['while it is up']:.1f} ms over a request while it is up")


def rolling(world):
    """A group of 50 Machines, taken over to another version: by rolling a fifth at a time, and all at once."""
    count, fifth = 50, 0.2
    app_time = statistics.median(by_hand() for _ in range(10))
    folder = os.path.join(world.folder, "app")
    os.makedirs(folder)
    toml = """app = "bench"
primary_region = "iad"
[build]
image = "testapp"
[deploy]
max_unavailable = %s
[env]
VERSION = "%d"
DELAY_MS = "%d"
[http_service]
internal_port = 8080
[[http_service.checks]]
path = "/health"
interval = "2s"
timeout = "1s"
"""
    version = 0

    def deploy(delay, *more):
        nonlocal version
        version += 1
        open(os.path.join(folder, "fly.toml"), "w").write(toml % (fifth, version, delay))
        return world.cli("deploy", folder, "--ha=false", *more)

    deploy(0)
    world.cli("scale", "count", str(count), "-a", APP, "--yes")
    # The first Machine goes alone, the others ten at a time.
    rounds = 1 + -(-(count - 1) // int(count * fifth))
    for delay in (0, 300, 1000):
        own = app_time + delay / 1000
        deploy(delay)
        middle = statistics.median(timed(lambda: deploy(delay)) for _ in range(3))
        print(f"rolling deploy of {count}, app takes {own * 1e3:.0f} ms: {middle * 1e3:.0f} ms, {middle / (rounds * own):.2f} x its {rounds} rounds of the app's own time")
    times, shares = [], []
    for _ in range(5):
        before = cpu_seconds()
        took = timed(lambda: deploy(0, "--strategy", "immediate"))
        used = [now - then for now, then in zip(cpu_seconds(), before)]
        times.append(took)
        shares.append(used[0] / sum(used))
        # It waits for no check; the next one begins from a fleet at rest.
        for machine in world.api("GET", f"/v1/apps/{APP}/machines"):
            world.wait(machine["id"], "started")
    print(f"immediate deploy of {count}: {statistics.median(times) * 1e3:.0f} ms, processors {statistics.median(shares) * 100:.0f} % busy; server {describe(smaps(world.server.pid))}")


def cpu_seconds():
    """Busy and idle time of all processors together."""
    fields = [int(field) for field in open("/proc/stat").readline().split()[1:]]
    idle = fields[3] + fields[4]
    return sum(fields[:8]) - idle, idle


def memory(world):
    pid = world.server.pid
    print("server, no Machines:", describe(smaps(pid)))
    before = kernel_memory()
    for _ in range(100):
        world.create(["lines", "0", "0"])
    after = kernel_memory()
    print("server, 100 Machines:", describe(smaps(pid)))
    inits = pids_of("__init")
    each = [smaps(p) for p in inits]
    total = {key: sum(e[key] for e in each) / max(len(each), 1) for key in ("Pss", "Private", "Rss")}
    print(f"per Machine ({len(each)} of init):", describe(total))
    helpers = [smaps(p) for p in pids_of("__helper")]
    if helpers:
        print("container helper:", describe(helpers[0]))
    print(f"kernel memory per Machine, the app's included: {(after - before) / 100:.0f} KiB")


def proxy(world):
    toml = """app = "bench"
primary_region = "iad"
[build]
image = "testapp"
[http_service]
internal_port = 8080
[http_service.concurrency]
type = "requests"
soft_limit = 1000
"""
    folder = os.path.join(world.folder, "app")
    os.makedirs(folder)
    open(os.path.join(folder, "fly.toml"), "w").write(toml)
    world.cli("deploy", folder, "--ha=false", "--vm-size", "shared-cpu-2x", "--smoke-checks=false")
    machine = json.loads(world.cli("machine", "list", "-a", APP, "--json").stdout)[0]["id"]
    config = os.path.join(world.folder, "nginx.conf")
    open(config, "w").write(NGINX % (world.folder, world.folder, world.address(machine)))
    nginx = subprocess.Popen(["nginx", "-c", config, "-g", "daemon off;"])
    time.sleep(0.5)
    targets = {"hangar": (80, [world.server.pid]), "nginx": (8099, [nginx.pid])}
    rates = {name: [] for name in targets}
    costs = {name: [] for name in targets}
    try:
        for round_number in range(6):
            order = list(targets) if round_number % 2 == 0 else list(reversed(targets))
            for name in order:
                port, pids = targets[name]
                family = [p for pid in pids for p in [pid, *children(pid)]]
                busy = cpu_ns(family)
                url = f"http://127.0.0.1:{port}/health"
                out = subprocess.run(["wrk", "-c", "64", "-t", "1", "-d", "5s", "-H", "Host: bench.localhost", url], capture_output=True, text=True).stdout
                requests = int(re.search(r"(\d+) requests in", out).group(1))
                if "Non-2xx" in out or "Socket errors" in out:
                    print(name, "had errors:", out)
                rates[name].append(requests / 5)
                costs[name].append((cpu_ns(family) - busy) / requests / 1e3)
    finally:
        nginx.terminate()
        nginx.wait(10)
    for name in targets:
        print(f"{name}: {statistics.median(rates[name]):.0f} requests/s, {statistics.median(costs[name]):.1f} us of proxy CPU a request")
    ratios = [a / b for a, b in zip(costs["hangar"], costs["nginx"])]
    print(f"CPU per request x nginx: min {min(ratios):.2f}, median {statistics.median(ratios):.2f}, max {max(ratios):.2f}")


def certificates(world):
    """What a TLS handshake costs the server with one imported certificate, and with a thousand."""
    service = {"internal_port": 8080, "protocol": "tcp", "ports": [{"port": 443, "handlers": ["tls", "http"]}]}
    world.create(["serve"], services=[service])
    key = os.path.join(world.folder, "key.pem")
    run(["openssl", "genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", key])
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE

    def bring(number):
        name = f"n{number}.example.com"
        command = ["openssl", "req", "-x509", "-key", key, "-days", "9", "-subj", f"/CN={name}", "-addext", f"subjectAltName=DNS:{name}"]
        chain = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        body = {"hostname": name, "fullchain": chain, "private_key": open(key).read()}
        world.api("POST", f"/v1/apps/{APP}/certificates/custom", body)
        return name

    def shake(name):
        with socket.create_connection(("127.0.0.1", port)) as stream, context.wrap_socket(stream, server_hostname=name) as tls:
            tls.version()

    def cost(name, count=500):
        shake(name)
        busy = cpu_ns([world.server.pid])
        took = timed(lambda: [shake(name) for _ in range(count)])
        return took / count * 1e6, (cpu_ns([world.server.pid]) - busy) / count / 1e3

    name, served = bring(0), 1
    port = world.api("GET", "/v1/platform/edge")["ports"]["443"]
    imports = []
    for wanted in (1, 1000):
        while served < wanted:
            imports.append(timed(lambda: bring(served)))
            name, served = f"n{served}.example.com", served + 1
        rounds = [cost(name) for _ in range(5)]
        wall, cpu = (statistics.median(values) for values in zip(*rounds))
        print(f"{served} certificates: {wall:.0f} us a handshake, {cpu:.0f} us of server CPU")
    print(f"an import, with making the certificate: median {statistics.median(imports) * 1e3:.1f} ms over {len(imports)}")


NGINX = """worker_processes 2;
pid %s/nginx.pid;
error_log %s/nginx.log;
events { worker_connections 4096; }
http {
  access_log off;
  upstream machine { server %s:8080; keepalive 1024; }
  server {
    listen 127.0.0.1:8099 reuseport;
    location / { proxy_pass http://machine; proxy_http_version 1.1; proxy_set_header Connection ""; }
  }
}
"""


def volumes(world):
    """What it costs that a volume's size is enforced: the same calls on it and on the bare data directory."""
    path = f"/v1/apps/{APP}/volumes"

    def volume():
        return world.api("POST", path, {"name": "data", "size_gb": 2, "require_unique_zone": False})["id"]

    figures = {"create a volume of 2 GB": []}
    for _ in range(10):
        begin = time.perf_counter()
        made = volume()
        figures["create a volume of 2 GB"].append(time.perf_counter() - begin)
        # Its room is set aside, and not everybody has room for ten.
        world.api("DELETE", f"{path}/{made}")
    made = volume()
    report(figures, "create a volume of 2 GB")
    figures = {"start without a volume": [], "start with a volume": []}
    plain = world.create(["serve"])["id"]
    with_volume = world.create(["serve"], mounts=[{"volume": made, "path": "/data"}])["id"]
    for _ in range(20):
        for name, machine in (("start with a volume", with_volume), ("start without a volume", plain)):
            world.api("POST", f"/v1/apps/{APP}/machines/{machine}/stop", {"signal": "SIGKILL"})
            world.wait(machine, "stopped")

            def start():
                world.api("POST", f"/v1/apps/{APP}/machines/{machine}/start")
                world.wait(machine, "started")

            figures[name].append(timed(start))
    report(figures, "start with a volume")
    mounted = [pid for pid in pids_of("__init") if " /data ext4 " in open(f"/proc/{pid}/mounts").read()]
    places = {"volume": os.path.join(f"/proc/{mounted[0]}", "root", "data"), "bare data directory": os.path.join(world.data, "bench")}
    os.makedirs(places["bare data directory"])
    measures = {"fsync of 4 KiB": (fsync_us, "us"), "write and fsync": (write_mb, "MB/s"), "read": (read_mb, "MB/s")}
    for measure, (take, unit) in measures.items():
        found = {name: [] for name in places}
        for _ in range(9):
            for name, place in places.items():
                found[name].append(take(place))
        middle = {name: statistics.median(values) for name, values in found.items()}
        ratio = middle["volume"] / middle["bare data directory"]
        print(f"{measure}: volume {middle['volume']:.0f}, bare {middle['bare data directory']:.0f} {unit}; {ratio:.2f} x")
    held = snapshot_held(world, path, made, places["volume"])
    print(f"snapshot of a volume with 512 MB: longest wait of a write meanwhile {held * 1e3:.0f} ms")


def fsync_us(place, count=200):
    """Returns the median of a small write and its fsync."""
    file = os.open(os.path.join(place, "small"), os.O_CREAT | os.O_RDWR | os.O_TRUNC)
    times = []
    for index in range(count):
        times.append(timed(lambda: (os.pwrite(file, b"x" * 4096, index * 4096), os.fsync(file))))
    os.close(file)
    return statistics.median(times) * 1e6


def write_mb(place, megabytes=512):
    block = os.urandom(1 << 20)

    def write():
        file = os.open(os.path.join(place, "large"), os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
        for _ in range(megabytes):
            os.write(file, block)
        os.fsync(file)
        os.close(file)

    return megabytes / timed(write)


def read_mb(place, megabytes=512):
    file = os.open(os.path.join(place, "large"), os.O_RDONLY)
    os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)

    def read():
        while os.read(file, 1 << 20):
            pass

    taken = timed(read)
    os.close(file)
    return megabytes / taken


def snapshot_held(world, path, volume, place):
    """Writes all the time while a snapshot is made, and returns the longest wait of one write."""
    asked = world.api("POST", f"{path}/{volume}/snapshots")["id"]
    file = os.open(os.path.join(place, "small"), os.O_RDWR)
    longest = 0
    while True:
        for _ in range(200):
            longest = max(longest, timed(lambda: (os.pwrite(file, b"y", 0), os.fsync(file))))
        found = [s for s in world.api("GET", f"{path}/{volume}/snapshots") if s["id"] == asked]
        if found[0]["status"] not in ("waiting", "running"):
            os.close(file)
            return longest


def timed(action):
    begin = time.perf_counter()
    action()
    return time.perf_counter() - begin


def report(figures, ours):
    base = statistics.median(figures[ours])
    for name, values in figures.items():
        if not values:
            print(f"{name}: not to be had here")
            continue
        values = sorted(values)
        middle = statistics.median(values)
        p95 = values[int(len(values) * 0.95) - 1] if len(values) > 1 else values[0]
        ratio = "" if name == ours else f"; ours is {base / middle:.2f} x that"
        print(f"{name}: min {values[0] * 1e3:.1f}, median {middle * 1e3:.1f}, p95 {p95 * 1e3:.1f} ms over {len(values)}{ratio}")


def run(command):
    # A detached program must not hold our pipes open.
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def until_answer(address, host="x"):
    """Asks until an answer with status 200 begins."""
    limit = time.time() + 20
    request = f"GET /health HTTP/1.1\r\nhost: {host}\r\n\r\n".encode()
    while time.time() < limit:
        try:
            with socket.create_connection(address, timeout=2) as stream:
                stream.sendall(request)
                if stream.recv(12) == b"HTTP/1.1 200":
                    return
        except OSError:
            pass
        time.sleep(0.0005)
    raise RuntimeError(f"nobody answers at {address}")


def by_hand():
    """Time of the program itself from exec to its first answer."""
    begin = time.perf_counter()
    child = subprocess.Popen([TESTAPP, "serve", "18080"], stdout=subprocess.DEVNULL)
    until_answer(("127.0.0.1", 18080))
    took = time.perf_counter() - begin
    child.kill()
    child.wait()
    return took


def runc_bundle(folder):
    bundle = os.path.join(folder, "bundle")
    os.makedirs(os.path.join(bundle, "rootfs"))
    shutil.copy(TESTAPP, os.path.join(bundle, "rootfs", "testapp"))
    subprocess.run(["runc", "spec"], cwd=bundle, check=True)
    path = os.path.join(bundle, "config.json")
    spec = json.load(open(path))
    spec["process"]["terminal"] = False
    spec["process"]["args"] = ["/testapp", "lines", "0", "0"]
    spec["process"]["rlimits"] = []
    spec["linux"]["resources"]["memory"] = {"limit": 256 << 20}
    spec["linux"]["resources"]["cpu"] = {"quota": 100000, "period": 100000}
    json.dump(spec, open(path, "w"))
    return bundle


def podman_image(world):
    if not shutil.which("podman"):
        return False
    archive = os.path.join(world.folder, "image.tar")
    loaded = subprocess.run(["podman", "pull", "-q", f"oci-archive:{archive}"], capture_output=True, text=True)
    if loaded.returncode != 0:
        return False
    image = loaded.stdout.split()[-1]
    return subprocess.run(["podman", "tag", image, "localhost/hangarbench"], capture_output=True).returncode == 0


def smaps(pid):
    out = {"Rss": 0, "Pss": 0, "Private": 0}
    try:
        for line in open(f"/proc/{pid}/smaps_rollup"):
            name, _, rest = line.partition(":")
            if name in ("Rss", "Pss"):
                out[name] += int(rest.split()[0])
            elif name in ("Private_Dirty", "Private_Clean"):
                out["Private"] += int(rest.split()[0])
    except OSError:
        pass
    return out


def describe(figures):
    return ", ".join(f"{name} {figures[name]:.0f} KiB" for name in ("Private", "Pss", "Rss"))


def kernel_memory():
    wanted = ("Slab", "KernelStack", "PageTables", "Percpu", "VmallocUsed")
    lines = open("/proc/meminfo").read().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.split(":")[0] in wanted)


def pids_of(word):
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                arguments = open(f"/proc/{entry}/cmdline", "rb").read().split(b"\0")
            except OSError:
                continue
            if len(arguments) > 1 and word.encode() in arguments[1]:
                found.append(int(entry))
    return found


def children(pid):
    try:
        return [int(p) for p in open(f"/proc/{pid}/task/{pid}/children").read().split()]
    except OSError:
        return []


def cpu_ns(pids):
    total = 0
    for pid in pids:
        try:
            for task in os.listdir(f"/proc/{pid}/task"):
                total += int(open(f"/proc/{pid}/task/{task}/schedstat").read().split()[0])
        except OSError:
            pass
    return total


def write_image(path):
    """Writes an OCI archive that holds the test program and nothing else."""
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as tar:
        info = tar.gettarinfo(TESTAPP, "testapp")
        info.uid = info.gid = info.mtime = 0
        info.mode = 0o755
        tar.addfile(info, open(TESTAPP, "rb"))
    blobs = {}

    def blob(data):
        digest = hashlib.sha256(data).hexdigest()
        blobs[f"blobs/sha256/{digest}"] = data
        return {"digest": f"sha256:{digest}", "size": len(data)}

    layer_blob = blob(layer.getvalue())
    kinds = "application/vnd.oci.image"
    config = {
        "architecture": {"x86_64": "amd64", "aarch64": "arm64"}.get(ARCH, ARCH),
        "os": "linux",
        "config": {"Entrypoint": ["/testapp"], "Cmd": ["serve"]},
        "rootfs": {"type": "layers", "diff_ids": [layer_blob["digest"]]},
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": f"{kinds}.manifest.v1+json",
        "config": {"mediaType": f"{kinds}.config.v1+json", **blob(json.dumps(config).encode())},
        "layers": [{"mediaType": f"{kinds}.layer.v1.tar", **layer_blob}],
    }
    entry = {"mediaType": f"{kinds}.manifest.v1+json", **blob(json.dumps(manifest).encode())}
    blobs["index.json"] = json.dumps({"schemaVersion": 2, "manifests": [entry]}).encode()
    blobs["oci-layout"] = b'{"imageLayoutVersion":"1.0.0"}'
    with tarfile.open(path, "w") as tar:
        for name, data in blobs.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


if __name__ == "__main__":
    main()
