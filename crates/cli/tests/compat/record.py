"""Stands between a client and Hangar's API and writes down what the client sends.

record.py PORT SERVER OUT CLIENT VERSION: listens on 127.0.0.1:PORT, passes each request on to
SERVER (host:port) and, when ended by SIGTERM, writes OUT (the form of the files beside this one).

A driver says what it is about to do by POST /__step {"call", "reads"}: `reads` are JSON pointers
of what the client needs of the answer. What the server names (ids, nonces) is replaced by
{placeholders} in later requests, so that the record can be played against any server.
"""

import http.client
import json
import re
import signal
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

# Keys of answers whose values a client sends back.
KEPT = ("id", "instance_id", "nonce", "ip", "token", "digest", "version")
# Headers that say how a client asks; the others belong to its HTTP library.
TOLD = ("content-type", "accept", "fly-machine-lease-nonce")

steps, lock, step = [], threading.Lock(), {}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def answer(self, status, headers, body):
        self.send_response(status)
        for name, value in headers:
            if name.lower() not in ("transfer-encoding", "connection", "content-length"):
                self.send_header(name, value)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def pass_on(self):
        length = self.headers.get("content-length")
        body = self.rfile.read(int(length)) if length else None
        if self.path == "/__step":
            step.clear()
            step.update(json.loads(body))
            return self.answer(204, [], b"")
        host, port = SERVER.split(":")
        connection = http.client.HTTPConnection(host, int(port), timeout=90)
        dropped = ("host", "connection", "accept-encoding", "transfer-encoding")
        headers = {k: v for k, v in self.headers.items() if k.lower() not in dropped}
        connection.request(self.command, self.path, body=body, headers=headers)
        response = connection.getresponse()
        data = response.read()
        if "x-driver" in self.headers:
            # The driver's own question, asked again until the answer is as it was here in the end.
            with lock:
                if steps and steps[-1].get("again") and steps[-1]["path"] == self.path:
                    steps.pop()
                asked = {"call": "the driver waits", "method": self.command, "path": self.path, "headers": {}}
                steps.append({**asked, "text": None, "status": response.status, "reads": [], "again": True, "answer": ""})
            return self.answer(response.status, response.getheaders(), data)
        with lock:
            steps.append(
                {
                    "call": step.get("call", ""),
                    "method": self.command,
                    "path": self.path,
                    "headers": {k.lower(): v for k, v in self.headers.items() if k.lower() in TOLD},
                    "text": None if body is None else body.decode(),
                    "status": response.status,
                    "reads": step.get("reads", []),
                    "answer": data.decode("utf-8", "replace"),
                }
            )
        return self.answer(response.status, response.getheaders(), data)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = pass_on


def values(answer, at=""):
    """Yields (pointer, value) of what a client may send back."""
    if isinstance(answer, dict):
        for key, value in answer.items():
            if key in KEPT and isinstance(value, str) and len(value) >= 8:
                yield f"{at}/{key}", value
            else:
                yield from values(value, f"{at}/{key}")
    elif isinstance(answer, list):
        for index, value in enumerate(answer):
            yield from values(value, f"{at}/{index}")


def found(answer, pointer):
    """Returns what a JSON pointer leads to, or None."""
    for part in pointer.split("/")[1:]:
        try:
            answer = answer[int(part)] if isinstance(answer, list) else answer[part]
        except (KeyError, IndexError, TypeError, ValueError):
            return None
    return answer


def kind(value):
    """Returns the type of a value in the words of tests/it/compat.rs."""
    kinds = {bool: "bool", int: "number", float: "number", str: "string", list: "list", dict: "object"}
    return kinds.get(type(value), "null")


def with_placeholders():
    """Replaces what the server named, and says where it is kept from."""
    sent = "\n".join(json.dumps([e["path"], e["headers"], e["text"]]) for e in steps)
    names, taken = {}, {}
    for exchange in steps:
        for field in ("path", "text"):
            for value, name in names.items():
                if exchange[field]:
                    exchange[field] = exchange[field].replace(value, name)
        for header, text in exchange["headers"].items():
            for value, name in names.items():
                text = text.replace(value, name)
            exchange["headers"][header] = text
        try:
            answer = json.loads(exchange.pop("answer"))
        except ValueError:
            answer = None
        exchange["reads"] = {at: kind(found(answer, at)) for at in exchange["reads"]}
        for at, what in exchange["reads"].items():
            if what == "null":
                print(f"{exchange['call']}: nothing is at {at} of the answer", file=sys.stderr)
        if exchange["text"] is None:
            del exchange["text"]
        for pointer, value in values(answer):
            if value in names or value not in sent:
                continue
            stem = re.sub(r"\W", "", pointer.rsplit("/", 1)[-1])
            taken[stem] = taken.get(stem, 0) + 1
            names[value] = "{%s%d}" % (stem, taken[stem])
            exchange.setdefault("keeps", {})[names[value].strip("{}")] = pointer
    return steps


def end(*_):
    record = {"client": f"{CLIENT} {VERSION}", "agent": CLIENT, "strict": True, "steps": with_placeholders()}
    with open(OUT, "w") as out:
        json.dump(record, out, indent=1)
        out.write("\n")
    sys.exit(0)


if __name__ == "__main__":
    PORT, SERVER, OUT, CLIENT, VERSION = sys.argv[1:]
    signal.signal(signal.SIGTERM, end)
    server = ThreadingHTTPServer(("127.0.0.1", int(PORT)), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    while True:
        signal.pause()
