"""A thousand waits at once: how long after an event its waits are answered, and what the rest cost."""

import selectors
import socket
import statistics
import time

MACHINES = 20
WAITS = 1000
ROUNDS = 3


def waits(world):
    """Each Machine is stopped by itself: its waits wake, those of the others do not."""
    machines = [world.create(["serve"]) for _ in range(MACHINES)]
    late = []
    for _ in range(ROUNDS):
        sockets = {machine["id"]: [ask(world, machine) for _ in range(WAITS // MACHINES)] for machine in machines}
        # All of them are asked for before anything happens.
        time.sleep(0.5)
        before = cpu_seconds(world)
        for machine in machines:
            world.api("POST", f"{path(machine)}/stop", {"signal": "SIGKILL"})
            late += answered(world, machine, sockets[machine["id"]])
        spent = cpu_seconds(world) - before
        for machine in machines:
            world.api("POST", f"{path(machine)}/start")
            world.wait(machine["id"], "started")
    late.sort()
    print(f"  {WAITS} waits on {MACHINES} Machines, {ROUNDS} rounds: answered after their event, "
          f"median {statistics.median(late):.1f} ms, p99 {late[int(len(late) * 0.99)]:.1f} ms, worst {late[-1]:.1f} ms; "
          f"processor time of the server {spent * 1000 / WAITS:.2f} ms a wait")


def path(machine):
    return f"/v1/apps/bench/machines/{machine['id']}"


def ask(world, machine):
    """Sends a wait and leaves it open."""
    sock = socket.create_connection(("127.0.0.1", 4280))
    sock.sendall(f"GET {path(machine)}/wait?state=stopped&timeout=60 HTTP/1.1\r\nhost: x\r\n"
                 f"authorization: Bearer {world.token}\r\n\r\n".encode())
    return sock


def answered(world, machine, sockets):
    """Returns the milliseconds from the event that stopped a Machine to the answer of each wait."""
    pick = selectors.DefaultSelector()
    for sock in sockets:
        pick.register(sock, selectors.EVENT_READ)
    moments = []
    limit = time.time() + 30
    while len(moments) < len(sockets):
        for key, _ in pick.select(timeout=1):
            now = time.time() * 1000
            answer = key.fileobj.recv(4096)
            if b" 200 " not in answer[:20]:
                raise SystemExit(f"a wait was answered with {answer[:200]}")
            moments.append(now)
            pick.unregister(key.fileobj)
            key.fileobj.close()
        if time.time() > limit:
            raise SystemExit("waits were not answered")
    events = world.api("GET", path(machine))["events"]
    stopped = next(event for event in events if event["status"] == "stopped")
    return [moment - stopped["timestamp"] for moment in moments]


def cpu_seconds(world):
    """Returns the processor time that the server has used."""
    fields = open(f"/proc/{world.server.pid}/stat").read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / 100
