"""ds4-server as it is started and ended: options, signals, limits of the system, a whole load.

Runs DS4_SERVER_BINARY on the small model that comes with the project.
"""
import json
import os
import re
import resource
import signal
import subprocess
import tempfile
import time
import unittest

from streams import load
from support import CHAT, IDLE_CONNECTIONS, Server, read_all, request, status

BINARY = os.environ["DS4_SERVER_BINARY"]
MODEL = "models/ds4-tiny.gguf"
SECONDS = float(os.environ.get("DS4_LOAD_SECONDS", "5"))
GAP_MAX_S = float(os.environ.get("DS4_GAP_MAX_S", "5"))
# About 1,500 tokens, which take a while to read.
LONG = {"messages": [{"role": "user", "content": "The stone is grey. " * 300 + "What is 2 + 3?"}],
        "max_tokens": 8}


class Program(Server):
    def __init__(self, *args, files_max=None):
        self.folder = tempfile.TemporaryDirectory()
        self.log = tempfile.TemporaryFile()
        limit = files_max and (lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (files_max, files_max)))
        self.process = subprocess.Popen(
            [BINARY, "-m", MODEL, "--port", "0", "--ctx", "2048", *args], stdout=subprocess.PIPE,
            stderr=self.log, preexec_fn=limit,
            env={**os.environ, "DS4_LOCK_FILE": os.path.join(self.folder.name, "lock")})
        deadline = time.time() + 60
        while not (found := re.search(r" on https?://[^ ]*:(\d+)", self.log_text())):
            if self.process.poll() is not None or time.time() > deadline:
                raise AssertionError(f"the server did not start: {self.log_text()}")
            time.sleep(0.02)
        self.port = int(found.group(1))

    def signal(self):
        self.process.send_signal(signal.SIGTERM)

    def wait(self):
        return self.process.wait(timeout=60)

    def close(self):
        self.process.stdout.close()
        self.log.close()
        self.folder.cleanup()


def refusal(*args, port="0"):
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run([BINARY, "-m", MODEL, "--port", port, *args], capture_output=True, text=True,
                              timeout=60, check=False,
                              env={**os.environ, "DS4_LOCK_FILE": os.path.join(folder, "lock")})
    return done.returncode, done.stderr


class Options(unittest.TestCase):
    def test_mistakes_are_told_in_one_line(self):
        for args, word in ((("--host", "0.0.0.0"), "--api-key-file"), (("--cors", "*"), "wildcard"),
                           (("--allowed-host", "x:1"), "without port"), (("--tls-cert", "x"), "both"),
                           (("--api-key-file", "/nonexistent"), "cannot read"),
                           (("--trace", "/nonexistent/trace"), "cannot append")):
            code, text = refusal(*args)
            self.assertEqual(code, 1, text)
            self.assertIn(word, text)
            self.assertEqual(text.count("\n"), 1, text)

    def test_a_taken_port(self):
        server = Program()
        code, text = refusal(port=str(server.port))
        self.assertEqual(code, 1)
        self.assertIn("cannot listen on", text)
        self.assertEqual(server.stop(), 0)

    def test_few_descriptors_mean_few_connections(self):
        server = Program(files_max=300)
        self.assertIn("room for 150 connections", server.log_text())
        links = [server.connect() for _ in range(145)]
        for link in links[::20]:
            link.sendall(request("GET", "/health/live"))
            self.assertEqual(status(read_all(link)), 200)
        links += [server.connect() for _ in range(200)]
        time.sleep(0.2)
        for link in links:
            link.close()
        server.wait_for(ready=True)
        self.assertEqual(server.stop(), 0)


class Signals(unittest.TestCase):
    def begin(self, server):
        link = server.connect()
        link.sendall(request("POST", "/v1/chat/completions", json.dumps(LONG).encode()))
        server.wait_for(active=1)
        return link

    def test_the_first_lets_answers_end(self):
        server = Program()
        link = self.begin(server)
        server.signal()
        deadline = time.time() + 20
        while status(server.get("/health/ready")) != 503:
            self.assertLess(time.time(), deadline)
        self.assertEqual(status(server.get("/health/live")), 200)
        reply = server.post("/v1/chat/completions", CHAT)
        self.assertEqual(status(reply), 503)
        self.assertIn(b"Retry-After", reply)
        self.assertEqual(status(read_all(link)), 200)
        self.assertEqual(server.wait(), 0)
        server.close()

    def test_an_answer_that_takes_too_long_is_cut(self):
        server = Program("--drain-seconds", "0")
        link = self.begin(server)
        server.signal()
        self.assertEqual(server.wait(), 0)
        self.assertEqual(status(read_all(link)), 503)
        server.close()

    def test_the_second_ends_at_once(self):
        server = Program()
        link = self.begin(server)
        server.signal()
        time.sleep(0.3)
        began = time.time()
        server.signal()
        self.assertEqual(server.wait(), 130)
        self.assertLess(time.time() - began, 2)
        link.close()
        server.close()


class Load(unittest.TestCase):
    def test_64_streams(self):
        server = Program("--sessions", "16", "--max-queue", "100")
        idle = [server.connect() for _ in range(IDLE_CONNECTIONS)]
        report = load(server.port, 64, SECONDS, 12, leavers=2, leaver_text="word " * 500)
        print("the small model, 64 streams:", report.text(), flush=True)
        self.assertEqual(report.failures, [])
        self.assertGreaterEqual(report.answers, 64)
        self.assertLess(max(report.gaps), GAP_MAX_S)
        for link in idle:
            link.close()
        server.wait_for(active=0, queued=0)
        self.assertEqual(server.stop(), 0)


if __name__ == "__main__":
    unittest.main(verbosity=2)
