"""The server's HTTP manners over real sockets: framing, limits, access, drain, load.

Runs ds4_scripted_server (DS4_SCRIPTED_SERVER), whose model says what the rules tell it.
"""
import json
import os
import signal
import socket
import stat
import subprocess
import tempfile
import threading
import time
import unittest

BINARY = os.environ["DS4_SCRIPTED_SERVER"]
CHAT = {"messages": [{"role": "user", "content": "hello"}], "reasoning_effort": "none"}


class Server:
    def __init__(self, **rules):
        self.folder = tempfile.TemporaryDirectory()
        path = os.path.join(self.folder.name, "rules.json")
        with open(path, "w", encoding="utf-8") as file:
            json.dump(rules, file)
        self.process = subprocess.Popen(
            [BINARY, path], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        self.port = int(self.process.stdout.readline().split()[1])

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(timeout=30)
        self.process.stdout.close()
        self.folder.cleanup()
        return code

    def connect(self):
        return socket.create_connection(("127.0.0.1", self.port), timeout=30)

    def raw(self, data):
        """Sends bytes on a new connection and returns everything until the server closes."""
        with self.connect() as link:
            link.sendall(data)
            return read_all(link)

    def post(self, path, body, **headers):
        return self.raw(request("POST", path, json.dumps(body).encode(), **headers))

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

    def prefilled(self):
        for line in self.get("/metrics").decode().splitlines():
            if line.startswith('ds4_tokens_total{phase="prefill"}'):
                return float(line.split()[1])
        return 0.0


def request(method, path, body=b"", close=True, **headers):
    fields = {"Host": "localhost", "Content-Type": "application/json"}
    fields.update({name.replace("_", "-"): value for name, value in headers.items()})
    if method == "POST":
        fields.setdefault("Content-Length", str(len(body)))
    if close:
        fields["Connection"] = "close"
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items() if value is not None)
    return f"{method} {path} HTTP/1.1\r\n{lines}\r\n".encode() + body


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


class Framing(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = Server(otherwise="Hello.")

    @classmethod
    def tearDownClass(cls):
        assert cls.server.stop() == 0

    def expect(self, code, data):
        reply = self.server.raw(data)
        self.assertEqual(status(reply), code, reply[:200])
        return reply

    def test_answers(self):
        reply = self.server.post("/v1/chat/completions", CHAT)
        self.assertEqual(status(reply), 200)
        self.assertEqual(body(reply)["choices"][0]["message"]["content"], "Hello.")

    def test_unknown_paths_and_methods(self):
        self.expect(404, request("GET", "/v1/other"))
        self.expect(404, request("POST", "/", b"{}"))
        self.expect(405, request("GET", "/v1/messages"))
        self.expect(405, request("POST", "/v1/models", b"{}"))

    def test_malformed_framing(self):
        self.expect(400, b"nonsense\r\n\r\n")
        self.expect(400, b"GET / HTTP/1.1\nHost: x\n\n" + b"\r\n\r\n")
        for length in ("-1", "1e3", "0x10", "99999999999999999999", "5, 6"):
            self.expect(400, request("POST", "/v1/messages", b"{}", Content_Length=length))
        twice = b"POST /v1/messages HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{} "
        self.expect(400, twice)
        both = request("POST", "/v1/messages", b"0\r\n\r\n", Transfer_Encoding="chunked",
                       Content_Length="5")
        self.expect(400, both)
        self.expect(501, request("POST", "/v1/messages", b"", Transfer_Encoding="gzip",
                                 Content_Length=None))
        self.expect(411, request("POST", "/v1/messages", b"", Content_Length=None))
        self.expect(400, request("POST", "/v1/messages", b"zz\r\n\r\n", Content_Length=None,
                                 Transfer_Encoding="chunked"))

    def test_chunked_bodies_are_read(self):
        text = json.dumps(CHAT).encode()
        chunks = b"%x\r\n%b\r\n0\r\n\r\n" % (len(text), text)
        self.expect(200, request("POST", "/v1/chat/completions", chunks, Content_Length=None,
                                 Transfer_Encoding="chunked"))

    def test_sizes(self):
        self.expect(431, request("GET", "/health", b"", X_Long="y" * 70000))
        self.expect(413, request("POST", "/v1/messages", b"{}", Content_Length=str(65 << 20)))

    def test_bodies_that_are_no_strict_json(self):
        for text in (b"", b"{", b"[]", b'{"a":1,"a":2}', b'{"temperature":1e999}',
                     b'{"messages":' + b"[" * 10000 + b"]" * 10000 + b"}", b'{"x":"\xff"}'):
            for path in ("/v1/chat/completions", "/v1/messages", "/v1/responses", "/v1/completions"):
                reply = self.expect(400, request("POST", path, text))
                self.assertIn("error", body(reply))

    def test_pipelined_requests_are_answered_in_order(self):
        one = request("POST", "/v1/chat/completions", json.dumps(CHAT).encode(), close=False)
        last = request("GET", "/health/live")
        reply = self.server.raw(one + one + last)
        self.assertEqual(reply.count(b"HTTP/1.1 200"), 3)
        self.assertTrue(reply.rstrip().endswith(b"}"))

    def test_a_connection_is_kept(self):
        with self.server.connect() as link:
            for _ in range(3):
                link.sendall(request("GET", "/health/live", close=False))
                self.assertEqual(status(link.recv(4096)), 200)

    def test_health_and_metrics(self):
        self.assertTrue(body(self.server.get("/health/ready"))["ready"])
        text = self.server.get("/metrics")
        self.assertIn(b"ds4_tokens_total", text)
        self.assertIn(b"ds4_http_requests_total", text)


class AccessRules(unittest.TestCase):
    def test_browsers_and_rebound_names_are_refused(self):
        server = Server(origins=["http://good.example"])
        reply = server.post("/v1/chat/completions", CHAT, Host="evil.example")
        self.assertEqual(status(reply), 421)
        for host in ("127.0.0.1:1", "[::1]:8000", "LOCALHOST:9"):
            self.assertEqual(status(server.get("/health", Host=host)), 200, host)
        self.assertEqual(status(server.post("/v1/messages", CHAT, Origin="http://evil.example")), 403)
        self.assertEqual(status(server.post("/v1/messages", CHAT, Sec_Fetch_Site="cross-site")), 403)
        reply = server.post("/v1/chat/completions", CHAT, Origin="http://good.example")
        self.assertEqual(status(reply), 200)
        self.assertIn(b"Access-Control-Allow-Origin: http://good.example", reply)
        self.assertEqual(status(server.post("/v1/messages", CHAT, Content_Type="text/plain")), 415)
        reply = server.raw(request("OPTIONS", "/v1/messages", Origin="http://good.example"))
        self.assertEqual(status(reply), 204)
        self.assertEqual(server.stop(), 0)

    def test_keys(self):
        with tempfile.NamedTemporaryFile("w", suffix=".keys") as file:
            file.write("alice 0123456789abcdef0123\nbob fedcba9876543210fedc 2\n")
            file.flush()
            os.chmod(file.name, stat.S_IRUSR | stat.S_IWUSR)
            server = Server(keys=file.name)
        ask = lambda **headers: server.post("/v1/chat/completions", CHAT, **headers)
        self.assertEqual(status(ask()), 401)
        self.assertEqual(status(ask(Authorization="Bearer wrong")), 401)
        self.assertEqual(status(ask(AUTHORIZATION="bearer 0123456789abcdef0123")), 200)
        first = body(ask(X_API_Key="0123456789abcdef0123"))
        other = body(ask(X_Api_Key="fedcba9876543210fedc"))
        cached = lambda reply: reply["usage"]["prompt_tokens_details"]["cached_tokens"]
        self.assertGreater(cached(first), 0)
        self.assertEqual(cached(other), 0)  # another namespace
        self.assertEqual(status(server.get("/health")), 200)
        self.assertEqual(status(server.get("/metrics")), 401)
        self.assertEqual(server.stop(), 0)


class Load(unittest.TestCase):
    def test_many_streams_and_idle_connections(self):
        server = Server(otherwise="y" * 60, slots=8, queue=100, context=2048)
        idle = [server.connect() for _ in range(300)]
        failures = []

        def stream(index):
            ask = {"messages": [{"role": "user", "content": f"client {index}"}], "stream": True,
                   "reasoning_effort": "none"}
            for _ in range(2):
                reply = server.post("/v1/chat/completions", ask)
                if status(reply) != 200 or b"[DONE]" not in reply or reply.count(b"y") < 60:
                    failures.append(reply[:300])

        threads = [threading.Thread(target=stream, args=(i,)) for i in range(64)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(failures, [])
        for link in idle:
            link.close()
        self.assertEqual(server.stop(), 0)

    def test_a_full_queue_says_when_to_come_back(self):
        server = Server(otherwise="y" * 100000, per_run_us=1000, slots=1, queue=1)
        links = []
        for queued in range(2):
            link = server.connect()
            link.sendall(request("POST", "/v1/chat/completions", json.dumps(CHAT).encode()))
            links.append(link)
            server.wait_for(active=1, queued=queued)
        reply = server.post("/v1/chat/completions", CHAT)
        self.assertEqual(status(reply), 429)
        self.assertIn(b"Retry-After", reply)
        reply = server.post("/v1/messages", {**CHAT, "max_tokens": 5})
        self.assertEqual(body(reply)["error"]["type"], "rate_limit_error")
        for link in links:
            link.close()
        server.wait_for(active=0, queued=0)  # both clients left
        self.assertEqual(server.stop(), 0)

    def test_a_killed_prefill_frees_the_engine_and_its_retry_resumes(self):
        tokens = 40000
        server = Server(per_row_us=50, slots=2)
        ask = {"messages": [{"role": "user", "content": ""}], "reasoning_effort": "none"}
        for share in (0.1, 0.5, 0.9):
            ask["messages"][0]["content"] = f"{share}" + "q" * tokens
            before = server.prefilled()
            link = server.connect()
            link.sendall(request("POST", "/v1/chat/completions", json.dumps(ask).encode()))
            while server.prefilled() - before < share * tokens:
                time.sleep(0.01)
            link.close()
            server.wait_for(active=0)
            self.assertLess(server.prefilled() - before, tokens)
            usage = body(server.post("/v1/chat/completions", ask))["usage"]
            self.assertGreaterEqual(usage["prompt_tokens_details"]["cached_tokens"], share * tokens)
        self.assertEqual(server.stop(), 0)

    def test_a_slow_reader_delays_only_itself(self):
        server = Server(otherwise="z" * 60000, slots=2)
        slow = socket.socket()
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.connect(("127.0.0.1", server.port))
        slow.sendall(request("POST", "/v1/chat/completions",
                             json.dumps({**CHAT, "stream": True}).encode()))
        time.sleep(0.5)
        quick = dict(CHAT, max_tokens=50)
        began = time.time()
        self.assertEqual(status(server.post("/v1/chat/completions", quick)), 200)
        self.assertLess(time.time() - began, 10)
        slow.close()
        self.assertEqual(server.stop(), 0)

    def test_sigterm_lets_answers_end(self):
        server = Server(otherwise="y" * 300, per_run_us=3000)
        result = []
        thread = threading.Thread(
            target=lambda: result.append(server.post("/v1/chat/completions", CHAT)))
        thread.start()
        server.wait_for(active=1)
        self.assertEqual(server.stop(), 0)
        thread.join()
        self.assertEqual(body(result[0])["choices"][0]["message"]["content"], "y" * 300)


if __name__ == "__main__":
    unittest.main(verbosity=2)
