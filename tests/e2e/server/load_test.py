"""Many clients, clients that leave, clients that do not read, and what is left afterwards.

Runs ds4_scripted_server (DS4_SCRIPTED_SERVER), whose model says what the rules tell it.  The length of
the load is DS4_LOAD_SECONDS.
"""
import json
import os
import socket
import threading
import time
import unittest

from streams import load
from support import CHAT, IDLE_CONNECTIONS, Server, body, read_all, request, status

SECONDS = float(os.environ.get("DS4_LOAD_SECONDS", "6"))
# A sanitizer's build is slower by a factor that says nothing about the server.
GAP_MAX_S = float(os.environ.get("DS4_GAP_MAX_S", "2"))
SLOW_BUILD = GAP_MAX_S > 10
LONG = "q" * 40000


def post_chat(**more):
    return request("POST", "/v1/chat/completions", json.dumps({**CHAT, **more}).encode())


def resources(server):
    """Descriptors and threads of the server's process."""
    base = f"/proc/{server.process.pid}"
    return len(os.listdir(f"{base}/fd")), len(os.listdir(f"{base}/task"))


def resident_mib(server):
    with open(f"/proc/{server.process.pid}/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE") / 2**20


class Load(unittest.TestCase):
    def test_64_streams_among_idle_and_leaving_clients(self):
        """Nobody sees an error or a long gap, and nothing is left when all are gone."""
        server = Server(otherwise="y" * 200, slots=32, queue=200, context=48000, per_run_us=1000,
                        per_row_us=5)
        load(server.port, clients=8, seconds=0.5)  # so that everything lazy exists
        server.wait_for(active=0, queued=0)
        before = resources(server)
        idle = [server.connect() for _ in range(IDLE_CONNECTIONS)]
        slow = socket.create_connection(("127.0.0.1", server.port))
        slow.sendall(post_chat(stream=True))
        report = load(server.port, 64, SECONDS, 60, leavers=4, leaver_text=LONG)
        print("64 streams, 1000 idle, 4 leaving:", report.text(), flush=True)
        self.assertEqual(report.failures, [])
        self.assertGreaterEqual(report.answers, 64)
        self.assertLess(max(report.gaps, default=0), GAP_MAX_S)
        # The idle ones still work.
        for link in idle[::100]:
            link.sendall(request("GET", "/health/live"))
            self.assertEqual(status(read_all(link)), 200)
        for link in idle + [slow]:
            link.close()
        server.wait_for(active=0, queued=0)
        deadline = time.time() + 20
        left = resources(server)
        while (left[0] > before[0] or left[1] > before[1]) and time.time() < deadline:
            time.sleep(0.05)
            left = resources(server)
        self.assertLessEqual(left[0], before[0])  # fewer when the last connection was still closing
        self.assertLessEqual(left[1], before[1])
        self.assertLessEqual(server.metric("ds4_connections"), 2)  # the one that asks, one that ends
        self.assertEqual(server.stop(), 0)

    def test_memory_does_not_grow_with_what_is_over(self):
        server = Server(otherwise="y" * 100, slots=8, queue=200, context=8192)
        load(server.port, 16, SECONDS / 3, 60)
        before = resident_mib(server)
        report = load(server.port, 16, SECONDS / 2, 60, leavers=2, leaver_text="q" * 4000)
        grown = resident_mib(server) - before
        print(f"{report.answers} answers grew {before:.0f} MiB by {grown:.1f}", flush=True)
        self.assertEqual(report.failures, [])
        self.assertLess(grown, 24)
        self.assertEqual(server.stop(), 0)

    def test_a_large_body_does_not_stall_streams(self):
        server = Server(otherwise="y" * 2000, slots=4, per_run_us=1000)
        large = {"messages": [{"role": "user", "content": "word " * (1 << (16 if SLOW_BUILD else 22))}]}
        replies = []
        threads = [threading.Thread(target=lambda: replies.append(
            status(server.post("/v1/chat/completions", large)))) for _ in range(2)]
        for thread in threads:
            thread.start()
        report = load(server.port, 2, 0, 2000)
        for thread in threads:
            thread.join()
        print("two large bodies beside:", report.text(), flush=True)
        self.assertEqual(report.failures, [])
        self.assertEqual(replies, [400, 400])  # more than the context
        self.assertLess(max(report.gaps, default=0), GAP_MAX_S)
        self.assertEqual(server.stop(), 0)

    def test_a_full_queue_says_when_to_come_back(self):
        server = Server(otherwise="y" * 100000, per_run_us=1000, slots=1, queue=1)
        links = []
        for queued in range(2):
            link = server.connect()
            link.sendall(post_chat())
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
        # Two where the queued one had its turn before its client was seen to have left.
        self.assertIn(server.metric('ds4_answers_cancelled_total'), (1, 2))
        self.assertEqual(server.stop(), 0)

    def test_a_full_house_turns_connections_away(self):
        server = Server(http={"connections_max": 4})
        links = [server.connect() for _ in range(4)]
        for link in links:
            link.sendall(request("GET", "/health/live", close=False))
            link.recv(4096)
        reply = server.raw(request("GET", "/health/live"))
        self.assertEqual(status(reply), 503)
        self.assertIn(b"Retry-After", reply)
        links.pop().close()
        deadline = time.time() + 10
        while status(server.raw(request("GET", "/health/live"))) != 200:
            self.assertLess(time.time(), deadline)
        for link in links:
            link.close()
        self.assertEqual(server.stop(), 0)

    def test_all_bodies_together_are_bounded(self):
        server = Server(http={"all_bodies_bytes_max": 300000})
        with server.connect() as held:
            held.sendall(request("POST", "/v1/messages", b" " * 250000, Content_Length="260000"))
            deadline = time.time() + 10
            while status(server.raw(request("POST", "/v1/messages", b" " * 100000))) != 503:
                self.assertLess(time.time(), deadline)
        # What was promised and never came is not counted.
        with server.connect() as held:
            held.sendall(request("POST", "/v1/messages", b" ", Content_Length="299999"))
            deadline = time.time() + 10
            while status(server.raw(request("POST", "/v1/messages", b" " * 100000))) != 400:
                self.assertLess(time.time(), deadline)
        self.assertEqual(server.stop(), 0)


class Leaving(unittest.TestCase):
    def test_a_killed_prefill_frees_the_engine_and_its_retry_resumes(self):
        tokens, chunk = 8000, 256
        server = Server(per_row_us=200, rows_max=chunk, slots=2)
        for share in (0.1, 0.5, 0.9):
            for streams, ahead in ((False, b""), (True, b""), (False, b"GET /")):
                name = f"{share} {streams} {ahead}"
                messages = [{"role": "user", "content": name + "q" * tokens}]
                before = server.prefilled()
                link = server.connect()
                link.sendall(post_chat(messages=messages, stream=streams) + ahead)
                while (seen := server.prefilled()) - before < share * tokens:
                    time.sleep(0.01)
                link.close()
                server.wait_for(active=0)
                # The chunk that ran, one that began since, and what the watch for clients that
                # have sent ahead takes.
                late = 2 * chunk + (10 * chunk if ahead else 0)
                self.assertLessEqual(server.prefilled() - seen, late, name)
                usage = body(server.post("/v1/chat/completions", {**CHAT, "messages": messages}))["usage"]
                cached = usage["prompt_tokens_details"]["cached_tokens"]
                self.assertGreaterEqual(cached, share * tokens, name)
        self.assertEqual(server.stop(), 0)

    def test_what_is_sent_ahead_is_no_leaving(self):
        server = Server(otherwise="y" * 50, per_run_us=20000)
        reply = server.raw(request("POST", "/v1/chat/completions", json.dumps(CHAT).encode(), close=False) +
                           request("GET", "/health/live"))
        self.assertEqual(reply.count(b"HTTP/1.1 200"), 2)
        self.assertEqual(server.stop(), 0)


class SlowReaders(unittest.TestCase):
    def slow_link(self, server):
        """Does not read what is much: the probabilities of twenty tokens with each."""
        slow = socket.socket()
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.connect(("127.0.0.1", server.port))
        slow.sendall(post_chat(stream=True, logprobs=True, top_logprobs=20))
        return slow

    def test_they_delay_only_themselves(self):
        server = Server(otherwise="z" * 60000, slots=4, queue=100)
        slow = [self.slow_link(server) for _ in range(3)]
        time.sleep(0.5)
        report = load(server.port, 4, 2, 50)
        print("3 slow readers beside:", report.text(), flush=True)
        self.assertEqual(report.failures, [])
        self.assertLess(max(report.gaps, default=0), GAP_MAX_S)
        for link in slow:
            link.close()
        server.wait_for(active=0)
        self.assertEqual(server.stop(), 0)

    def test_they_cannot_hold_a_slot_for_ever(self):
        server = Server(otherwise="z" * 60000, slots=1, http={"write_timeout_ms": 1000})
        slow = self.slow_link(server)
        server.wait_for(active=1)
        done = threading.Event()

        def sip():
            try:
                while not done.wait(0.05) and slow.recv(16):
                    pass
            except OSError:
                pass

        sipper = threading.Thread(target=sip)
        sipper.start()
        began = time.time()
        self.assertEqual(status(server.post("/v1/chat/completions", {**CHAT, "max_tokens": 5})), 200)
        print(f"a slot held by a client that sips was free after {time.time() - began:.1f} s", flush=True)
        done.set()
        sipper.join()
        slow.close()
        self.assertEqual(server.stop(), 0)


class Ending(unittest.TestCase):
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

    def test_idle_connections_do_not_hold_up_the_end(self):
        server = Server()
        idle = [server.connect() for _ in range(20)]
        idle[0].sendall(request("GET", "/health/live", close=False))
        idle[0].recv(4096)
        began = time.time()
        self.assertEqual(server.stop(), 0)
        # Less than what the last bytes of a reply would be given.
        self.assertLess(time.time() - began, 10 if SLOW_BUILD else 1.9)
        for link in idle:
            self.assertEqual(read_all(link), b"")
            link.close()


if __name__ == "__main__":
    unittest.main(verbosity=2)
