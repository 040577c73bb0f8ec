"""The server's HTTP manners over real sockets: framing, limits, deadlines, JSON.

Runs ds4_scripted_server (DS4_SCRIPTED_SERVER), whose model says what the rules tell it.
"""
import json
import re
import time
import unittest

from support import CHAT, Server, body, read_all, request, status

POSTS = ("/v1/chat/completions", "/v1/messages", "/v1/responses", "/v1/completions")


class Deadlines(unittest.TestCase):
    """Deadlines are for the whole of a thing: dripping does not prolong them."""

    @classmethod
    def setUpClass(cls):
        cls.server = Server(otherwise="Hello.", http={
            "header_timeout_ms": 600, "body_timeout_ms": 600, "idle_timeout_ms": 600,
            "write_timeout_ms": 1000})

    @classmethod
    def tearDownClass(cls):
        assert cls.server.stop() == 0

    def drip(self, first, piece):
        """Seconds until the server has had enough, and what it said."""
        began = time.time()
        with self.server.connect() as link:
            link.sendall(first)
            link.settimeout(0.05)
            while time.time() - began < 20:
                try:
                    return time.time() - began, link.recv(4096)
                except TimeoutError:
                    pass
                try:
                    link.sendall(piece)
                except (BrokenPipeError, ConnectionResetError):
                    pass
        self.fail("the server waits for ever")

    def test_a_dripped_head(self):
        seconds, reply = self.drip(b"GET /health HTTP/1.1\r\nX: ", b"y")
        self.assertEqual(status(reply), 408)
        self.assertLess(seconds, 10)

    def test_a_dripped_body(self):
        seconds, reply = self.drip(request("POST", "/v1/messages", b"{", Content_Length="1000"), b" ")
        self.assertEqual(status(reply), 408)
        self.assertEqual(body(reply)["type"], "error")
        self.assertLess(seconds, 10)
        seconds, reply = self.drip(request("POST", "/v1/messages", b"", Content_Length=None,
                                           Transfer_Encoding="chunked"), b"1\r\n \r\n")
        self.assertEqual(status(reply), 408)

    def test_an_idle_connection_is_closed(self):
        with self.server.connect() as link:
            began = time.time()
            self.assertEqual(read_all(link), b"")
            self.assertLess(time.time() - began, 10)
        with self.server.connect() as link:
            link.sendall(request("GET", "/health/live", close=False))
            self.assertEqual(read_all(link).count(b"HTTP/1.1 200"), 1)


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

    def test_malformed_heads(self):
        get = lambda line, fields="Host: localhost\r\n": f"{line}\r\n{fields}\r\n".encode()
        for data in (b"nonsense\r\n\r\n", b"GET / HTTP/1.1\nHost: x\n\n" + b"\r\n\r\n",
                     get("GET /health HTTP/2.0"), get("GET /health HTTP/1.10"),
                     get("GET /health"), get("GET  /health HTTP/1.1"),
                     get("GET http://localhost/health HTTP/1.1"), get("GET health HTTP/1.1"),
                     get("GET /health HTTP/1.1", ""),
                     get("GET /health HTTP/1.1", "Host: localhost\r\nHost: evil.example\r\n"),
                     get("GET /health HTTP/1.1", "Host : localhost\r\n"),
                     get("GET /health HTTP/1.1", "Host: localhost\r\nX: a\x00b\r\n"),
                     get("GET /health HTTP/1.1", "Host: localhost\r\nX: a\rb\r\n"),
                     get("GET /health HTTP/1.1", "Host: localhost\r\n: a\r\n"),
                     get("GET /health HTTP/1.1", "Host: localhost\r\nX y: a\r\n")):
            self.expect(400, data)
        self.expect(411, request("POST", "/v1/messages", b"", Content_Length=None))

    def test_a_request_that_two_servers_could_read_differently_is_refused(self):
        """What smuggling is made of: after each of these nothing else on the connection counts."""
        hidden = request("GET", "/health/live")
        post = lambda fields, data: (
            f"POST /v1/messages HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            f"{fields}\r\n\r\n").encode() + data
        chunked = "Transfer-Encoding: chunked"
        shapes = [post(f"Content-Length: {length}", b"{}") for length in
                  ("-1", "+2", "1e3", "0x10", "2.0", "99999999999999999999", "5, 6", "2, 2", "")]
        shapes += [
            post("Content-Length: 2\r\nContent-Length: 3", b"{} "),
            post("Content-Length: 2\r\nContent-Length: 2", b"{}"),
            post(f"Content-Length: 5\r\n{chunked}", b"0\r\n\r\n"),
            post(f"{chunked}\r\nContent-Length: 5", b"0\r\n\r\n"),
            post("Transfer-Encoding : chunked", b"0\r\n\r\n"),
            post("Content-Length : 2", b"{}"),
            post("Transfer-Encoding: gzip", b""),
            post("Transfer-Encoding: gzip, chunked", b"0\r\n\r\n"),
            post("Transfer-Encoding: chunked, identity", b"0\r\n\r\n"),
            post("Transfer-Encoding: xchunked", b"0\r\n\r\n"),
            post("Transfer-Encoding: \x0bchunked", b"0\r\n\r\n"),
            post(f"{chunked}\r\n{chunked}", b"0\r\n\r\n"),
            post(f"{chunked}\r\nTransfer-Encoding: identity", b"0\r\n\r\n"),
            post(chunked, b"0\r\n\r\n").replace(b"HTTP/1.1", b"HTTP/1.0", 1),
        ]
        shapes += [post(chunked, data + b"\r\n0\r\n\r\n") for data in
                   (b"zz\r\n{}", b"-2\r\n{}", b"0x2\r\n{}", b"2\n{}", b"2\r\n{}xx", b"\r\n{}",
                    b"FFFFFFFFFFFFFFFFF\r\n{}", b"2;" + b"x" * 1000000 + b"\r\n{}")]
        for shape in shapes:
            reply = self.server.raw(shape + hidden)
            self.assertIn(status(reply), (400, 501), (shape[:200], reply[:200]))
            self.assertEqual(reply.count(b"HTTP/1.1 "), 1, shape[:200])

    def test_a_body_is_not_the_next_request(self):
        inner = request("GET", "/v1/models")
        reply = self.server.raw(request("GET", "/health/live", inner, close=False,
                                        Content_Length=str(len(inner))) +
                                request("GET", "/health/live"))
        self.assertEqual(reply.count(b"HTTP/1.1 200"), 2)
        self.assertNotIn(b"context_length", reply)

    def test_trailers_are_bounded_and_ignored(self):
        text = json.dumps(CHAT).encode()
        post = lambda trailers: request(
            "POST", "/v1/chat/completions", b"%x\r\n%b\r\n0\r\n%b\r\n" % (len(text), text, trailers),
            Content_Length=None, Transfer_Encoding="chunked")
        self.expect(200, post(b"X-Api-Key: nothing\r\n"))
        reply = self.server.raw(post(b"X: y\r\n" * 100000))
        self.assertIn(status(reply), (400, 431))

    def test_head_has_no_body(self):
        with self.server.connect() as link:
            link.sendall(request("HEAD", "/v1/models", close=False) +
                         request("HEAD", "/v1/messages", close=False) +
                         request("GET", "/health/live"))
            reply = read_all(link)
        self.assertEqual([line.split()[1] for line in reply.split(b"\r\n")
                          if line.startswith(b"HTTP/1.1 ")], [b"200", b"405", b"200"])
        self.assertNotIn(b"context_length", reply)

    def test_http_1_0(self):
        reply = self.server.raw(b"GET /health/live HTTP/1.0\r\n\r\n")
        self.assertEqual(status(reply), 200)
        ask = json.dumps({**CHAT, "stream": True}).encode()
        reply = self.server.raw(b"POST /v1/chat/completions HTTP/1.0\r\nContent-Type: application/json"
                                b"\r\nContent-Length: %d\r\n\r\n%b" % (len(ask), ask))
        self.assertEqual(status(reply), 200)
        self.assertNotIn(b"chunked", reply)
        self.assertTrue(reply.endswith(b"data: [DONE]\n\n"))

    def test_a_stream_is_chunked_even_when_the_connection_ends_with_it(self):
        reply = self.server.post("/v1/chat/completions", {**CHAT, "stream": True})
        self.assertIn(b"Transfer-Encoding: chunked", reply)
        self.assertTrue(reply.endswith(b"\r\n0\r\n\r\n"))

    def test_chunked_bodies_are_read(self):
        text = json.dumps(CHAT).encode()
        chunks = b"%x\r\n%b\r\n0\r\n\r\n" % (len(text), text)
        self.expect(200, request("POST", "/v1/chat/completions", chunks, Content_Length=None,
                                 Transfer_Encoding="chunked"))

    def test_sizes(self):
        self.expect(431, request("GET", "/health", b"", X_Long="y" * 70000))
        self.expect(431, request("GET", "/health?" + "y" * 70000))
        self.expect(413, request("POST", "/v1/messages", b"{}", Content_Length=str(65 << 20)))

    def test_a_refusal_reaches_a_client_that_is_still_sending(self):
        """The rest of its body must not reset the connection before it has read the answer."""
        size = 65 << 20
        with self.server.connect() as link:
            link.sendall(request("POST", "/v1/messages", b"", Content_Length=str(size)))
            try:
                for _ in range(64):
                    link.sendall(b" " * (1 << 16))
            except (BrokenPipeError, ConnectionResetError):
                pass
            self.assertEqual(status(read_all(link)), 413)

    def test_expect_continue(self):
        text = json.dumps(CHAT).encode()
        with self.server.connect() as link:
            link.sendall(request("POST", "/v1/chat/completions", b"", Expect="100-continue",
                                 Content_Length=str(len(text))))
            self.assertEqual(status(link.recv(4096)), 100)
            link.sendall(text)
            self.assertEqual(status(read_all(link)), 200)
        self.expect(413, request("POST", "/v1/messages", b"", Expect="100-continue",
                                 Content_Length=str(65 << 20)))

    def test_bodies_that_are_no_strict_json(self):
        deep = b"[" * 10000 + b"]" * 10000
        deep_object = b'{"a":' * 10000 + b"1" + b"}" * 10000
        for text in (b"", b"{", b"[]", b"null", b"{} {}", b"{}x", b'{"a":1,"a":2}',
                     b'{"messages":[{"role":"user","role":"user","content":"x"}]}',
                     b'{"temperature":1e999}', b'{"temperature":-1e999}', b'{"temperature":NaN}',
                     b'{"temperature":Infinity}', b'{"max_tokens":01}', b'{"max_tokens":1.5}',
                     b'{"max_tokens":1e30}', b'{"max_tokens":-0}', b'{"x":"\xff"}',
                     b'{"x":"\\ud800"}', b'{"x":"\x00"}', b"{'x':1}", b"\xef\xbb\xbf[]",
                     b'{"messages":' + deep + b"}", b'{"unknown":' + deep + b"}",
                     b'{"messages":' + deep_object + b"}", deep_object, deep):
            for path in POSTS + ("/v1/messages/count_tokens",):
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
        for path in ("/health", "/health/live", "/health/ready"):
            health = body(self.server.get(path))
            self.assertEqual((health["status"], health["live"], health["ready"]), ("ready", True, True))
        self.server.post("/v1/chat/completions", {**CHAT, "stream": True})
        self.server.get("/v1/models/anything-a-client-made-up")
        text = self.server.get("/metrics").split(b"\r\n\r\n", 1)[1].decode()
        names = {line.split("{")[0].split(" ")[0] for line in text.splitlines() if not line.startswith("#")}
        # Every name of the page is there, once it has something to say, and no other.
        with open("docs/protocols/http.md", encoding="utf-8") as file:
            table = file.read().split("## Metrics", 1)[1]
        documented = set(re.findall(r"`((?:ds4|process)_\w+)", table))
        seen = {re.sub(r"_(bucket|sum|count)$", "", name) for name in names}
        self.assertLessEqual(seen, documented)
        absent = documented - seen
        self.assertLessEqual(absent, {"ds4_tool_call_repairs_total", "ds4_store_total", "ds4_store"})
        self.assertNotIn("made-up", text)
        for line in text.splitlines():
            self.assertRegex(line, r"^(# (HELP|TYPE) |[a-z0-9_]+(\{[a-z_]+=\".*\"\})? [-+.0-9a-zN]+$)")


if __name__ == "__main__":
    unittest.main(verbosity=2)
