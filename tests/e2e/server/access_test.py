"""Who may ask: browsers and rebound names, keys and their namespaces, TLS, addresses, the log.

Runs ds4_scripted_server (DS4_SCRIPTED_SERVER), whose model says what the rules tell it.
"""
import http.client
import json
import os
import shutil
import socket
import ssl
import stat
import subprocess
import tempfile
import time
import unittest

from support import CHAT, SCRIPTED, Server, body, read_all, request, status

ALICE = "0123456789abcdef0123"
BOB = "fedcba9876543210fedc"


def key_file(text="", mode=stat.S_IRUSR | stat.S_IWUSR):
    file = tempfile.NamedTemporaryFile("w", suffix=".keys")
    file.write(text or f"# who may\nalice {ALICE}\nbob {BOB} 2  # first\n")
    file.flush()
    os.chmod(file.name, mode)
    return file


def refusal(**rules):
    """Why a server with these rules does not start."""
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(rules, file)
        file.flush()
        done = subprocess.run([SCRIPTED, file.name], capture_output=True, text=True, timeout=60,
                              check=False)
    assert done.returncode == 1, done
    return done.stderr


class Browsers(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = Server(origins=["http://good.example"], allowed_hosts=["box.lan"])

    @classmethod
    def tearDownClass(cls):
        assert cls.server.stop() == 0

    def chat(self, **headers):
        return self.server.post("/v1/chat/completions", CHAT, **headers)

    def test_a_rebound_name(self):
        for host in ("evil.example", "evil.example:80", "localhost.evil.example", "127.0.0.1.evil.example",
                     "2130706433", "0x7f.1", "localhost@evil.example"):
            self.assertEqual(status(self.chat(Host=host)), 421, host)
            self.assertEqual(status(self.server.get("/v1/models", Host=host)), 421, host)
        for host in ("127.0.0.1:1", "[::1]:8000", "LOCALHOST:9", "box.lan", "BOX.lan:80"):
            self.assertEqual(status(self.chat(Host=host)), 200, host)

    def test_pages_of_other_sites(self):
        for headers in ({"Origin": "http://evil.example"}, {"Origin": "null"},
                        {"Origin": "https://good.example"}, {"Origin": "http://good.example.evil.example"},
                        {"Sec_Fetch_Site": "cross-site"}, {"Sec_Fetch_Site": "same-site"}):
            reply = self.chat(**headers)
            self.assertEqual(status(reply), 403, headers)
            self.assertNotIn(b"Access-Control", reply)
            self.assertEqual(status(self.server.get("/v1/models", **headers)), 403, headers)

    def test_a_listed_origin_may_call_and_read(self):
        reply = self.chat(Origin="http://good.example")
        self.assertEqual(status(reply), 200)
        self.assertIn(b"Access-Control-Allow-Origin: http://good.example\r\nVary: Origin", reply)
        reply = self.server.post("/v1/chat/completions", {**CHAT, "stream": True},
                                 Origin="http://good.example")
        self.assertIn(b"Access-Control-Allow-Origin: http://good.example", reply)
        reply = self.server.raw(request("OPTIONS", "/v1/messages", Origin="http://good.example",
                                        Access_Control_Request_Private_Network="true"))
        self.assertEqual(status(reply), 204)
        self.assertIn(b"Access-Control-Allow-Private-Network: true", reply)
        self.assertIn(b"Access-Control-Allow-Headers: authorization", reply)
        # An error has to be readable too.
        reply = self.server.post("/v1/messages", {}, Origin="http://good.example")
        self.assertEqual(status(reply), 400)
        self.assertIn(b"Access-Control-Allow-Origin", reply)

    def test_a_form_of_a_page_is_no_json(self):
        for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data", None,
                     "application/jsonx", "text/plain; application/json"):
            reply = self.server.post("/v1/messages", CHAT, Content_Type=kind)
            self.assertEqual(status(reply), 415, kind)
        for kind in ("application/json; charset=utf-8", "Application/JSON"):
            self.assertEqual(status(self.chat(Content_Type=kind)), 200, kind)


class Keys(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        with key_file() as file:
            cls.server = Server(keys=file.name)

    @classmethod
    def tearDownClass(cls):
        assert cls.server.stop() == 0

    def chat(self, question="hello", **headers):
        ask = {"messages": [{"role": "user", "content": question}], "reasoning_effort": "none"}
        return self.server.post("/v1/chat/completions", ask, **headers)

    def test_who_has_a_key(self):
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": ALICE},
                        {"Authorization": f"Basic {ALICE}"}, {"X_Api_Key": ""},
                        {"X_Api_Key": ALICE[:-1]}, {"X_Api_Key": ALICE + "x"},
                        {"X_Api_Key": ALICE.upper()}):
            reply = self.chat(**headers)
            self.assertEqual(status(reply), 401, headers)
            self.assertIn(b"WWW-Authenticate: Bearer", reply)
            self.assertEqual(body(reply)["error"]["code"], "invalid_api_key")
        for headers in ({"AUTHORIZATION": f"bearer {ALICE}"}, {"X_API_KEY": ALICE},
                        {"Authorization": "Bearer placeholder", "X_Api_Key": ALICE},
                        {"Authorization": f"Bearer {ALICE}", "X_Api_Key": "placeholder"}):
            self.assertEqual(status(self.chat(**headers)), 200, headers)

    def test_what_needs_none(self):
        for path in ("/health", "/health/live", "/health/ready"):
            self.assertEqual(status(self.server.get(path)), 200)
        self.assertEqual(status(self.server.raw(request("OPTIONS", "/v1/messages"))), 204)
        for path in ("/metrics", "/v1/models", "/nothing"):
            self.assertEqual(status(self.server.get(path)), 401)

    def test_a_refusal_does_not_wait_for_the_body(self):
        reply = self.server.raw(request("POST", "/v1/messages", b"", Content_Length="1000000"))
        self.assertEqual(status(reply), 401)

    def test_a_namespace_each(self):
        cached = lambda reply: body(reply)["usage"]["prompt_tokens_details"]["cached_tokens"]
        self.chat("a secret of alice", X_Api_Key=ALICE)
        self.assertGreater(cached(self.chat("a secret of alice", X_Api_Key=ALICE)), 0)
        self.assertEqual(cached(self.chat("a secret of alice", X_Api_Key=BOB)), 0)


class KeyFiles(unittest.TestCase):
    def test_what_is_refused(self):
        for text, word in (("alice\n", "line 1"), ("alice short\n", "at least 16"),
                           (f"alice {ALICE} high\n", "priority"), (f"alice {ALICE} 1 2\n", "line 1"),
                           (f"alice {ALICE} 1000000000\n", "priority"),
                           (f"alice {ALICE}\nalice {BOB}\n", "twice"),
                           (f"alice {ALICE}\nbob {ALICE}\n", "same key"), ("# none\n", "no key")):
            with key_file(text) as file:
                why = refusal(keys=file.name)
            self.assertIn(word, why)
            self.assertNotIn(ALICE, why)
        with key_file(mode=0o644) as file:
            self.assertIn("chmod 600", refusal(keys=file.name))
        self.assertIn("cannot read", refusal(keys="/nonexistent/keys"))


class Addresses(unittest.TestCase):
    def test_only_this_machine_without_keys(self):
        for host in ("0.0.0.0", "::"):
            self.assertIn("--api-key-file", refusal(hosts=[host]))
        self.assertIn("--api-key-file", refusal(hosts=["127.0.0.1", "0.0.0.0"]))
        self.assertIn("no address of this machine", refusal(hosts=["no such name"]))
        server = Server(hosts=["0.0.0.0"], insecure_no_auth=True)
        self.assertEqual(status(server.get("/health")), 200)
        self.assertEqual(server.stop(), 0)
        with key_file() as file:
            server = Server(hosts=["0.0.0.0"], keys=file.name)
        self.assertEqual(status(server.get("/v1/models", X_Api_Key=BOB, Host="anything")), 200)
        self.assertEqual(server.stop(), 0)

    def test_origins_and_names_that_could_never_match(self):
        for origin in ("*", "localhost:3000", "http://good.example/", "http://*.good.example"):
            self.assertIn("--cors", refusal(origins=[origin]))
        for host in ("box.lan:8000", "http://box.lan", "*"):
            self.assertIn("--allowed-host", refusal(allowed_hosts=[host]))

    def test_both_families(self):
        if not socket.has_ipv6 or not os.path.exists("/proc/net/if_inet6"):
            self.skipTest("no IPv6 here")
        server = Server(hosts=["127.0.0.1", "::1"])
        for address in ("127.0.0.1", "::1"):
            with socket.create_connection((address, server.port), timeout=30) as link:
                link.sendall(request("GET", "/health", Host="[::1]"))
                self.assertEqual(status(read_all(link)), 200, address)
        self.assertEqual(server.stop(), 0)


@unittest.skipUnless(shutil.which("openssl"), "no openssl program to make a certificate with")
class Tls(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        cls.cert, cls.key = (os.path.join(cls.folder.name, name) for name in ("cert.pem", "key.pem"))
        subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt",
                        "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2", "-subj", "/CN=localhost",
                        "-addext", "subjectAltName=DNS:localhost", "-keyout", cls.key, "-out", cls.cert],
                       check=True, capture_output=True)
        cls.server = Server(http={"cert": cls.cert, "key": cls.key, "header_timeout_ms": 1000},
                            otherwise="y" * 400)
        cls.context = ssl.create_default_context(cafile=cls.cert)

    @classmethod
    def tearDownClass(cls):
        assert cls.server.stop() == 0
        cls.folder.cleanup()

    def connect(self, context=None):
        link = socket.create_connection(("127.0.0.1", self.server.port), timeout=30)
        return (context or self.context).wrap_socket(link, server_hostname="localhost")

    def test_answers_and_streams(self):
        link = http.client.HTTPSConnection("localhost", self.server.port, context=self.context)
        link.connect()
        for streams in (False, True, False):  # on one connection
            link.request("POST", "/v1/chat/completions", json.dumps({**CHAT, "stream": streams}),
                         {"Content-Type": "application/json"})
            reply = link.getresponse()
            self.assertEqual(reply.status, 200)
            self.assertGreaterEqual(reply.read().count(b"y"), 400)
        link.close()

    def test_the_end_is_told(self):
        """Without the farewell of TLS a cut reply could not be told from a whole one."""
        with self.connect() as link:
            link.sendall(request("GET", "/health"))
            self.assertEqual(status(read_all(link)), 200)  # an SSLEOFError otherwise

    def test_old_versions_and_plain_text_are_refused(self):
        old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        old.check_hostname = False
        old.verify_mode = ssl.CERT_NONE
        old.set_ciphers("ALL:@SECLEVEL=0")
        old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
        with self.assertRaises((ssl.SSLError, ConnectionResetError)):
            self.connect(old)
        reply = self.server.raw(request("GET", "/health"))
        self.assertEqual(status(reply), 0)

    def test_a_handshake_that_never_comes(self):
        began = time.time()
        with socket.create_connection(("127.0.0.1", self.server.port), timeout=30) as link:
            self.assertEqual(read_all(link), b"")
        self.assertLess(time.time() - began, 10)

    def test_files_that_do_not_fit(self):
        self.assertIn("certificate", refusal(http={"cert": "/nonexistent", "key": self.key}))
        self.assertIn("key", refusal(http={"cert": self.cert, "key": self.cert}))
        self.assertIn("both", refusal(http={"cert": self.cert}))


class Privacy(unittest.TestCase):
    SECRET = "the cellar door is open"

    def test_prompts_stand_in_the_trace_alone(self):
        with tempfile.TemporaryDirectory() as folder, key_file() as file:
            trace = os.path.join(folder, "trace")
            server = Server(keys=file.name, trace=trace, trace_bytes_max=20000)
            ask = {"messages": [{"role": "user", "content": self.SECRET}]}
            for path, extra in (("/v1/chat/completions", {"stream": True}), ("/v1/messages", {"max_tokens": 9}),
                                ("/v1/chat/completions", {"unknown": self.SECRET})):
                server.post(path, {**ask, **extra}, X_Api_Key=ALICE)
            server.raw(request("POST", "/v1/messages", b'{"x": ' + self.SECRET.encode(), X_Api_Key=ALICE))
            log = server.log_text()
            self.assertNotIn(self.SECRET, log)
            self.assertNotIn(ALICE, log)
            self.assertNotIn(self.SECRET, server.get("/metrics", X_Api_Key=ALICE).decode())
            with open(trace, encoding="utf-8") as lines:
                entries = [json.loads(line) for line in lines]
            self.assertEqual(len(entries), 2)
            self.assertTrue(all(self.SECRET in entry["body"] for entry in entries))
            self.assertNotIn(ALICE, json.dumps(entries))
            # It is turned over, and stays private.
            for _ in range(40):
                server.post("/v1/chat/completions", ask, X_Api_Key=ALICE)
            for name in (trace, trace + ".1"):
                self.assertEqual(stat.S_IMODE(os.stat(name).st_mode), 0o600)
                self.assertLessEqual(os.stat(name).st_size, 20000)
            self.assertEqual(server.stop(), 0)

    def test_a_trace_elsewhere_is_refused(self):
        with tempfile.TemporaryDirectory() as folder:
            link = os.path.join(folder, "link")
            os.symlink(os.path.join(folder, "target"), link)
            self.assertIn("cannot append", refusal(trace=link))
            self.assertIn("cannot append", refusal(trace=os.path.join(folder, "none", "trace")))


if __name__ == "__main__":
    unittest.main(verbosity=2)
