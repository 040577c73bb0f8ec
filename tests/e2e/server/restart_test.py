"""A server that is ended or killed and started again on its disk store goes on with every conversation.

Runs ds4-server (DS4_SERVER_BINARY) on the embedded model, and ds4_scripted_server (DS4_SCRIPTED_SERVER)
where the model must say a given thing.
"""
import concurrent.futures
import http.client
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import threading
import time
import unittest

SERVER = os.environ["DS4_SERVER_BINARY"]
SCRIPTED = os.environ["DS4_SCRIPTED_SERVER"]
MODEL = os.environ.get("DS4_MODEL", "models/ds4-tiny.gguf")
TOOLS = [{"type": "function", "function": {
    "name": "look_up", "description": "Looks a word up.",
    "parameters": {"type": "object", "properties": {"word": {"type": "string"}}}}}]


class Server:
    """One run of a server; `stop` or `kill` ends it, and another may follow on the same directory."""

    started = []  # processes; those that a failed test leaves are ended by its class

    def __init__(self, command, environment=None):
        self.log = tempfile.TemporaryFile("w+")
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=self.log, text=True,
                                        env={**os.environ, **(environment or {})})
        self.started.append(self.process)
        self.port = None

    def post(self, path, body):
        link = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        link.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
        reply = link.getresponse()
        text = reply.read()
        link.close()
        assert reply.status == 200, text
        return json.loads(text)

    def metric(self, name):
        link = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        link.request("GET", "/metrics")
        text = link.getresponse().read().decode()
        link.close()
        found = re.search(re.escape(name) + r" ([0-9.e+]+)", text)
        return float(found[1]) if found else 0.0

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        return self.end()

    def kill(self):
        self.process.kill()
        return self.end()

    def end(self):
        code = self.process.wait(timeout=60)
        if self.process.stdout:
            self.process.stdout.close()
        self.log.close()
        return code


def small_model(folder, *flags):
    server = Server([SERVER, "-m", MODEL, "--port", "0", "-c", "4096", "--sessions", "8",
                     "--kv-disk-dir", os.path.join(folder, "kv"), "--kv-cache-min-tokens", "16",
                     "--verbose", *flags], {"DS4_LOCK_FILE": os.path.join(folder, "lock")})
    while server.port is None:
        server.log.seek(0)
        found = re.search(r"on http://[^\s]*:(\d+)", server.log.read())
        if found:
            server.port = int(found[1])
        elif server.process.poll() is not None:
            server.log.seek(0)
            raise AssertionError(server.log.read())
        else:
            time.sleep(0.05)
    return server


def scripted(folder, rules):
    path = os.path.join(folder, "rules.json")
    with open(path, "w", encoding="utf-8") as file:
        json.dump({**rules, "kv": os.path.join(folder, "kv")}, file)
    server = Server([SCRIPTED, path])
    server.port = int(server.process.stdout.readline().split()[1])
    return server


class Chat:
    """A conversation that is sent whole each turn, without the reasoning, as most clients do."""

    def __init__(self, name, thinks):
        self.messages = [{"role": "system", "content": f"You are {name}. " + "Be brief. " * 20}]
        self.effort = "high" if thinks else "none"

    def ask(self, server, text):
        self.messages.append({"role": "user", "content": text})
        reply = server.post("/v1/chat/completions",
                            {"messages": self.messages, "reasoning_effort": self.effort,
                             "max_tokens": 64, "temperature": 0})
        self.messages.append({"role": "assistant",
                              "content": reply["choices"][0]["message"]["content"] or ""})
        self.usage = reply["usage"]
        self.cut = reply["choices"][0]["finish_reason"] == "length"
        return self

    @property
    def read(self):
        return self.usage["prompt_tokens"] - self.cached

    @property
    def cached(self):
        return self.usage["prompt_tokens_details"]["cached_tokens"]


class Messages(Chat):
    def __init__(self, name, thinks):
        super().__init__(name, thinks)
        self.system = self.messages.pop()["content"]
        self.thinks = thinks

    def ask(self, server, text):
        self.messages.append({"role": "user", "content": text})
        body = {"model": "any", "system": self.system, "messages": self.messages,
                "max_tokens": 64, "temperature": 0}
        body["thinking"] = {"type": "disabled"}
        reply = server.post("/v1/messages", body)
        said = "".join(part["text"] for part in reply["content"] if part["type"] == "text")
        self.messages.append({"role": "assistant", "content": said or "."})
        usage = reply["usage"]
        cached = usage.get("cache_read_input_tokens", 0)
        self.usage = {"prompt_tokens": usage["input_tokens"] + cached,
                      "prompt_tokens_details": {"cached_tokens": cached}}
        return self


class Restart(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.folder, True)

    def tearDown(self):
        for process in Server.started:
            if process.poll() is None:
                process.kill()
                process.wait()
        Server.started.clear()

    def conversations(self, count=8):
        return ([Chat(f"chat {i}", thinks=i % 2 == 0) for i in range(count * 3 // 4)] +
                [Messages(f"messages {i}", thinks=False) for i in range(count // 4)])

    @staticmethod
    def ask_all(server, chats, text):
        with concurrent.futures.ThreadPoolExecutor(len(chats)) as pool:
            list(pool.map(lambda chat: chat.ask(server, text), chats))

    # Of a turn: the question, its markers, and what the last turn's end left unevaluated.
    NEW_TOKENS_MAX = 40

    def through_a_restart(self, chats):
        """Two turns, SIGTERM, a third turn on what the disk kept: the lengths of the prompts of the first two."""
        server = small_model(self.folder)
        self.ask_all(server, chats, "What is 12 + 30?")
        firsts = [chat.usage["prompt_tokens"] for chat in chats]
        self.ask_all(server, chats, "And 5 + 6?")
        seconds = [chat.usage["prompt_tokens"] for chat in chats]
        self.assertEqual(server.stop(), 0)

        server = small_model(self.folder)
        self.ask_all(server, chats, "And 7 + 8?")
        self.assertLessEqual(server.metric('ds4_tokens_total{phase="prefill"}'),
                             self.NEW_TOKENS_MAX * len(chats))
        self.assertEqual(server.metric('ds4_prefix_reuse_total{source="disk"}'), len(chats))
        self.assertEqual(server.stop(), 0)
        return firsts, seconds

    def test_every_conversation_goes_on_after_sigterm(self):
        chats = self.conversations()
        _, seconds = self.through_a_restart(chats)
        for chat, before in zip(chats, seconds):
            self.assertGreaterEqual(chat.cached, before, chat.messages[0])
            self.assertLessEqual(chat.read, self.NEW_TOKENS_MAX, chat.messages[0])

    # As many as the load test has, far more than stay in memory.  Saves at an eviction do not hold up
    # decoding: when the disk is behind they are left out, so a few conversations are a turn behind.
    def test_sixty_four_conversations_go_on_after_sigterm(self):
        chats = self.conversations(64)
        firsts, _ = self.through_a_restart(chats)
        for chat, first in zip(chats, firsts):
            self.assertGreater(chat.cached, first // 2, chat.messages[0])

    def test_what_was_saved_is_not_read_again_after_a_kill(self):
        chats = self.conversations()
        server = small_model(self.folder)
        self.ask_all(server, chats, "What is 12 + 30?")
        # Prompts are saved when they were read.
        while server.metric('ds4_store_total{what="saves"}') < len(chats):
            time.sleep(0.05)
        firsts = [chat.usage["prompt_tokens"] for chat in chats]
        server.kill()
        server = small_model(self.folder)
        self.ask_all(server, chats, "And 5 + 6?")
        for chat, first in zip(chats, firsts):
            self.assertGreater(chat.cached, first // 2, chat.messages[0])
        server.stop()

    def test_a_restored_conversation_says_what_an_unbroken_one_says(self):
        unbroken = small_model(self.folder)
        chat = Chat("the same", thinks=True)
        for text in ("What is 12 + 30?", "And 5 + 6?", "And 7 + 8?"):
            chat.ask(unbroken, text)
        unbroken.stop()
        shutil.rmtree(os.path.join(self.folder, "kv"))
        again = Chat("the same", thinks=True)
        for text in ("What is 12 + 30?", "And 5 + 6?", "And 7 + 8?"):
            server = small_model(self.folder)
            again.ask(server, text)
            server.stop()
        self.assertEqual(again.messages, chat.messages)

    def test_calls_of_tools_are_found_again(self):
        # Written otherwise than the server would write it, so that only memory knows the bytes.
        call = ("thoughts</think>\n\n<｜DSML｜tool_calls>\n<｜DSML｜invoke name=\"look_up\">\n"
                "<｜DSML｜parameter name=\"word\" string=\"true\">tree</｜DSML｜parameter>\n\n"
                "</｜DSML｜invoke>\n</｜DSML｜tool_calls>")
        rules = {"rules": [{"trigger": "look up", "answer": call},
                           {"trigger": "a plant", "answer": "It is a plant."}]}
        messages = [{"role": "system", "content": "s" * 300},
                    {"role": "user", "content": "look up tree"}]
        server = scripted(self.folder, rules)
        body = {"messages": messages, "tools": TOOLS, "reasoning_effort": "high"}
        reply = server.post("/v1/chat/completions", body)
        said = reply["choices"][0]["message"]
        self.assertEqual(reply["choices"][0]["finish_reason"], "tool_calls")
        server.stop()
        server = scripted(self.folder, rules)
        said.pop("reasoning_content", None)
        messages += [said, {"role": "tool", "tool_call_id": said["tool_calls"][0]["id"],
                            "content": "a plant"}]
        reply = server.post("/v1/chat/completions", body)
        usage = reply["usage"]
        read = usage["prompt_tokens"] - usage["prompt_tokens_details"]["cached_tokens"]
        # The model of this server has a token a byte.
        self.assertLess(read, 150, usage)
        server.stop()

    def test_a_miss_is_explained_in_the_log_and_the_trace(self):
        trace = os.path.join(self.folder, "trace.jsonl")
        rules = {"otherwise": "Hello.", "trace": trace}
        system = "".join(f"Rule {i} of the house is to be kind. " for i in range(20))
        body = {"messages": [{"role": "system", "content": system},
                             {"role": "user", "content": "hello"}], "reasoning_effort": "none"}
        server = scripted(self.folder, rules)
        server.post("/v1/chat/completions", body)
        server.stop()
        changed = system.replace("Rule 15", "Rule XV")
        body["messages"][0]["content"] = changed
        server = scripted(self.folder, rules)
        server.post("/v1/chat/completions", body)
        server.process.send_signal(signal.SIGTERM)
        server.process.wait(timeout=60)
        server.log.seek(0)
        log = server.log.read()
        server.end()
        with open(trace, encoding="utf-8") as file:
            first, second = (json.loads(line)["cache"] for line in file)
        self.assertEqual((first["source"], first["reason"], first["disk"]["reason"]),
                         ("cold", "nothing-in-memory", "nothing-saved"))
        self.assertEqual((second["source"], second["disk"]["reason"]), ("disk", "differs"))
        # Where the texts part: the bytes round it are in the trace, never in the log.
        self.assertIn("Rule 15 of the house", second["disk"]["saved"])
        self.assertIn(f"disk: differs at byte {second['disk']['first_difference']}", log)
        self.assertNotIn("of the house", log)

    def test_looking_up_why_holds_up_nobody_else(self):
        rules = {"otherwise": "Hello.", "explain_ms": 3000, "http": {"threads": 1}}
        body = {"messages": [{"role": "user", "content": "hello " * 20}]}
        server = scripted(self.folder, rules)
        began = time.monotonic()
        server.post("/v1/chat/completions", body)
        self.assertLess(time.monotonic() - began, 1.5)
        time.sleep(3.5)
        server.log.seek(0)
        self.assertIn("disk: nothing-saved", server.log.read())
        server.stop()
        # With a trace the answer itself waits until it is written down.
        rules["trace"] = os.path.join(self.folder, "trace.jsonl")
        body["messages"][0]["content"] = "another " * 20
        server = scripted(self.folder, rules)
        began = time.monotonic()
        asking = threading.Thread(target=server.post, args=("/v1/chat/completions", body))
        asking.start()
        longest = 0
        while asking.is_alive():
            before = time.monotonic()
            server.metric('ds4_store_total{what="saves"}')
            longest = max(longest, time.monotonic() - before)
            time.sleep(0.05)
        self.assertGreater(time.monotonic() - began, 3)
        self.assertLess(longest, 1.5)
        server.stop()


if __name__ == "__main__":
    unittest.main()
