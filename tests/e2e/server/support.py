"""What the server's tests share: a server to talk to, requests as bytes, replies taken apart."""
import json
import os
import resource
import signal
import socket
import subprocess
import tempfile
import time

# Room for a thousand connections, here and in the servers that are started from here.
FILES_HARD = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
FILES_MAX = 8192 if FILES_HARD == resource.RLIM_INFINITY else min(FILES_HARD, 8192)
resource.setrlimit(resource.RLIMIT_NOFILE, (FILES_MAX, FILES_HARD))
IDLE_CONNECTIONS = min(1000, FILES_MAX - 200)

SCRIPTED = os.environ.get("DS4_SCRIPTED_SERVER", "")
CHAT = {"messages": [{"role": "user", "content": "hello"}], "reasoning_effort": "none"}


class Server:
    """A process that listens on `port`; rules make it the scripted one (scripted_server.cpp)."""

    def __init__(self, **rules):
        self.folder = tempfile.TemporaryDirectory()
        path = os.path.join(self.folder.name, "rules.json")
        with open(path, "w", encoding="utf-8") as file:
            json.dump(rules, file)
        self.log = tempfile.TemporaryFile()
        self.process = subprocess.Popen(
            [SCRIPTED, path], stdout=subprocess.PIPE, stderr=self.log, text=True)
        line = self.process.stdout.readline()
        if not line:
            raise AssertionError(f"the server did not start: {self.log_text()}")
        self.port = int(line.split()[1])

    def log_text(self):
        self.log.seek(0)
        return self.log.read().decode(errors="replace")

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(timeout=60)
        self.process.stdout.close()
        text = self.log_text()
        self.log.close()
        self.folder.cleanup()
        for word in ("ERROR: AddressSanitizer", "ERROR: LeakSanitizer", "runtime error:",
                     "WARNING: ThreadSanitizer"):
            assert word not in text, text
        return code

    def connect(self):
        return socket.create_connection(("127.0.0.1", self.port), timeout=30)

    def raw(self, data):
        """Sends bytes on a new connection and returns everything until the server closes."""
        with self.connect() as link:
            link.sendall(data)
            return read_all(link)

    def post(self, path, value, **headers):
        return self.raw(request("POST", path, json.dumps(value).encode(), **headers))

    def get(self, path, **headers):
        return self.raw(request("GET", path, b"", **headers))

    def wait_for(self, **wanted):
        """Until /health says so: nothing here depends on how fast the machine is."""
        deadline = time.time() + 30
        while time.time() < deadline:
            health = body(self.get("/health"))
            if all(health[name] == value for name, value in wanted.items()):
                return
            time.sleep(0.02)
        raise AssertionError(f"{health} instead of {wanted}")

    def metric(self, name):
        for line in self.get("/metrics").decode().splitlines():
            if line.startswith(name + " "):
                return float(line.split()[1])
        return 0.0

    def prefilled(self):
        return self.metric('ds4_tokens_total{phase="prefill"}')


def request(method, path, data=b"", close=True, **headers):
    fields = {"Host": "localhost", "Content-Type": "application/json"}
    fields.update({name.replace("_", "-"): value for name, value in headers.items()})
    if method == "POST":
        fields.setdefault("Content-Length", str(len(data)))
    if close:
        fields["Connection"] = "close"
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items() if value is not None)
    return f"{method} {path} HTTP/1.1\r\n{lines}\r\n".encode() + data


def read_all(link):
    data = b""
    try:
        while piece := link.recv(65536):
            data += piece
    except ConnectionResetError:
        pass
    return data


def status(reply):
    return int(reply.split(b" ", 2)[1]) if reply.startswith(b"HTTP/1.1 ") else 0


def body(reply):
    return json.loads(reply.split(b"\r\n\r\n", 1)[1])
