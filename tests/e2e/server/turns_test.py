"""A conversation's next turn reads only what is new, in every protocol.

Every protocol, with and without reasoning, with and without tools, and however the turn before
ended: the usage of the next request says how much of its prompt was in memory.  Runs
ds4_scripted_server (DS4_SCRIPTED_SERVER), whose tokens are single bytes and markers.
"""
import itertools
import json
import unittest

from support import Server, body, status

CALL = ('\n\n<｜DSML｜tool_calls>\n<｜DSML｜invoke name="look">\n<｜DSML｜parameter name="place" '
        'string="true">Oslo & "x" < y</｜DSML｜parameter>\n</｜DSML｜invoke>\n</｜DSML｜tool_calls>')
RULES = [
    {"trigger": "greet-think", "answer": "Thoughts about it.</think>Hello there, friend."},
    {"trigger": "greet-plain", "answer": "Hello there, friend."},
    {"trigger": "call-think", "answer": "Look it up.</think>Let me see." + CALL},
    {"trigger": "call-plain", "answer": "Let me see." + CALL},
    {"trigger": "<tool_result>", "answer": "Hm.</think>Sunny."},
    {"trigger": "and more", "answer": "Hm.</think>More."},
]
SCHEMA = {"type": "object", "properties": {"place": {"type": "string"}}, "required": ["place"]}
# Tokens of "and more", markers, and for results their wrapper: well below any history.
NEW_TOKENS_MAX = 64


class Chat:
    path = "/v1/chat/completions"
    tools = [{"type": "function", "function": {"name": "look", "parameters": SCHEMA}}]

    @staticmethod
    def first(text, think, most):
        return {"messages": [{"role": "user", "content": text}], "max_tokens": most,
                "reasoning_effort": "high" if think else "none"}

    @staticmethod
    def finish(reply):
        return reply["choices"][0]["finish_reason"]

    @staticmethod
    def calls(reply):
        return reply["choices"][0]["message"].get("tool_calls", [])

    @staticmethod
    def follow(ask, reply):
        message = dict(reply["choices"][0]["message"])
        message.pop("reasoning_content", None)  # most clients do not send it back
        ask["messages"].append(message)
        for call in message.get("tool_calls", []):
            ask["messages"].append({"role": "tool", "tool_call_id": call["id"], "content": "sun"})
        if not message.get("tool_calls"):
            ask["messages"].append({"role": "user", "content": "and more"})

    @staticmethod
    def usage(reply):
        usage = reply["usage"]
        return usage["prompt_tokens"], usage["prompt_tokens_details"]["cached_tokens"]


class Messages:
    path = "/v1/messages"
    tools = [{"name": "look", "input_schema": SCHEMA}]

    @staticmethod
    def first(text, think, most):
        return {"messages": [{"role": "user", "content": text}], "max_tokens": most,
                "thinking": {"type": "enabled" if think else "disabled"}}

    @staticmethod
    def finish(reply):
        return {"end_turn": "stop", "max_tokens": "length",
                "tool_use": "tool_calls"}[reply["stop_reason"]]

    @staticmethod
    def calls(reply):
        return [block for block in reply["content"] if block["type"] == "tool_use"]

    @classmethod
    def follow(cls, ask, reply):
        ask["messages"].append({"role": "assistant", "content": reply["content"]})
        results = [{"type": "tool_result", "tool_use_id": call["id"], "content": "sun"}
                   for call in cls.calls(reply)]
        ask["messages"].append({"role": "user", "content": results or "and more"})

    @staticmethod
    def usage(reply):
        usage = reply["usage"]
        cached = usage["cache_read_input_tokens"]
        return usage["input_tokens"] + cached, cached


class Responses:
    path = "/v1/responses"
    tools = [{"type": "function", "name": "look", "parameters": SCHEMA}]

    @staticmethod
    def first(text, think, most):
        return {"input": [{"role": "user", "content": text}], "max_output_tokens": most,
                "reasoning": {"effort": "high" if think else "none"}}

    @classmethod
    def finish(cls, reply):
        if reply["status"] == "incomplete":
            return "length"
        return "tool_calls" if cls.calls(reply) else "stop"

    @staticmethod
    def calls(reply):
        return [item for item in reply["output"] if item["type"] == "function_call"]

    @classmethod
    def follow(cls, ask, reply):
        ask["input"] += reply["output"]
        calls = cls.calls(reply)
        for call in calls:
            ask["input"].append({"type": "function_call_output", "call_id": call["call_id"],
                                 "output": "sun"})
        if not calls:
            ask["input"].append({"role": "user", "content": "and more"})

    @staticmethod
    def usage(reply):
        usage = reply["usage"]
        return usage["input_tokens"], usage["input_tokens_details"]["cached_tokens"]


class NextTurn(unittest.TestCase):
    texts = {"stop": "greet", "length": "greet", "tool_calls": "call"}
    must_call = False  # the model needs to be told
    cuts = {True: (6, 30), False: (6, 10)}  # tokens, inside the reasoning and behind it, by think

    @classmethod
    def setUpClass(cls):
        cls.server = Server(rules=RULES, otherwise="?", slots=4)

    @classmethod
    def tearDownClass(cls):
        assert cls.server.stop() == 0

    def ask(self, protocol, ask):
        reply = self.server.post(protocol.path, ask)
        self.assertEqual(status(reply), 200, reply)
        self.assertNotIn("DSML", reply.decode())
        return body(reply)

    def conversations(self):
        """Protocol, think, tools, ending, and the limit of the first answer."""
        for protocol, think, tools in itertools.product((Chat, Messages, Responses), (True, False),
                                                        (True, False)):
            yield protocol, think, tools, "stop", 500
            for cut in self.cuts[think]:
                yield protocol, think, tools, "length", cut
            if tools:
                yield protocol, think, tools, "tool_calls", 500

    def test_reads_only_what_is_new(self):
        for number, (protocol, think, tools, ending, most) in enumerate(self.conversations()):
            with self.subTest(protocol=protocol.path, think=think, tools=tools, ending=ending,
                              most=most):
                mode = "think" if think else "plain"
                text = f"Conversation {number} to be told apart: {self.texts[ending]}-{mode}"
                ask = protocol.first(text, think, most)
                if tools:
                    ask["tools"] = protocol.tools
                choice = {"type": "any"} if protocol is Messages else "required"
                forced = {"tool_choice": choice} if self.must_call and ending == "tool_calls" else {}
                first = self.ask(protocol, {**ask, **forced})
                self.assertEqual(protocol.finish(first), ending, first)
                if ending == "tool_calls":
                    self.assertGreaterEqual(len(protocol.calls(first)), 1)
                protocol.follow(ask, first)
                ask["max_output_tokens" if protocol is Responses else "max_tokens"] = 100
                prompt, cached = protocol.usage(self.ask(protocol, ask))
                self.assertGreater(cached, 20)
                self.assertLess(prompt - cached, NEW_TOKENS_MAX, json.dumps(first))


if __name__ == "__main__":
    unittest.main(verbosity=2)
