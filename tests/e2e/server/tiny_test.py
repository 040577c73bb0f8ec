"""ds4-server on the small model that comes with the project: what a mask promises holds for a real
vocabulary and real logits.
"""
import itertools
import json
import threading
import unittest

from program_test import Program
from protocol_test import PATHS, ask_for, calls_of, choice_for, format_for, text_of, tool_for
from support import body, status

SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 1, "maxLength": 12},
        "kind": {"enum": ["small", "large", None]},
        "count": {"type": "integer", "minimum": 0, "maximum": 99},
        "share": {"type": "number", "minimum": 0, "maximum": 1},
        "tags": {"type": "array", "items": {"type": "string", "pattern": "^[a-z]{2,4}$"}, "minItems": 1,
                 "maxItems": 2},
        "next": {"anyOf": [{"$ref": "#/$defs/leaf"}, {"type": "null"}]},
    },
    "required": ["name", "kind", "count", "share", "tags", "next"],
    "additionalProperties": False,
    "$defs": {"leaf": {"type": "object", "properties": {"ok": {"type": "boolean"}},
                       "required": ["ok"], "additionalProperties": False}},
}


class Masks(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = Program("--sessions", "4")

    @classmethod
    def tearDownClass(cls):
        assert cls.server.stop() == 0

    def ask(self, protocol, ask):
        reply = self.server.post(PATHS[protocol], ask)
        self.assertEqual(status(reply), 200, reply)
        return body(reply)

    def check(self, text):
        value = json.loads(text)
        self.assertEqual(list(value), SCHEMA["required"])
        self.assertTrue(1 <= len(value["name"]) <= 12, text)
        self.assertIn(value["kind"], ("small", "large", None))
        self.assertTrue(isinstance(value["count"], int) and 0 <= value["count"] <= 99, text)
        self.assertTrue(0 <= value["share"] <= 1, text)
        self.assertTrue(1 <= len(value["tags"]) <= 2)
        for tag in value["tags"]:
            self.assertRegex(tag, "^[a-z]{2,4}$")
        self.assertTrue(value["next"] is None or isinstance(value["next"]["ok"], bool), text)

    def test_a_schema_holds_whatever_is_drawn(self):
        samplings = [{"temperature": 0}, {"temperature": 1, "top_p": 0.9},
                     {"temperature": 1.5, "top_k": 50, "min_p": 0}]
        for seed, (protocol, sampling) in enumerate(itertools.product(PATHS, samplings)):
            think = seed % 2 == 1
            budget = {"thinking_budget": 20} if think else {}
            ask = ask_for(protocol, "Tell me about 12 + 30.", think=think, most=600, seed=seed,
                          **sampling, **budget, **format_for(protocol, SCHEMA))
            with self.subTest(protocol=protocol, sampling=sampling, think=think):
                self.check(text_of(protocol, self.ask(protocol, ask)))

    def test_calls_hold_to_their_schemas(self):
        tools = lambda protocol: [tool_for(protocol, "note", SCHEMA, strict=True),
                                  tool_for(protocol, "add", {
                                      "type": "object", "required": ["a", "b"], "properties": {
                                          "a": {"type": "integer"}, "b": {"type": "integer"},
                                          "unit": {"type": "string", "maxLength": 8}}})]
        for seed, (protocol, name) in enumerate(itertools.product(PATHS, ("note", "add", None))):
            temperature = seed % 2
            ask = ask_for(protocol, "What is 47 + 85?", most=900, seed=seed, temperature=temperature,
                          tools=tools(protocol), tool_choice=choice_for(protocol, name),
                          thinking={"type": "disabled"})
            with self.subTest(protocol=protocol, name=name, temperature=temperature):
                calls = calls_of(protocol, self.ask(protocol, ask))
                self.assertGreaterEqual(len(calls), 1)
                for called, arguments in calls:
                    self.assertIn(called, (name,) if name else ("note", "add"))
                    if called == "note":
                        self.check(json.dumps({key: arguments[key] for key in SCHEMA["required"]}))
                        self.assertEqual(len(arguments), len(SCHEMA["required"]))
                    else:
                        self.assertTrue(isinstance(arguments["a"], int))
                        self.assertTrue(isinstance(arguments["b"], int))

    def test_several_users_at_once(self):
        failures = []

        def run(index):
            masked = index % 2 == 1
            ask = ask_for("chat", f"User {index}, 12 + 30?", most=600 if masked else 40, seed=index,
                          **(format_for("chat", SCHEMA) if masked else {}))
            text = text_of("chat", self.ask("chat", ask))
            try:
                if masked:
                    self.check(text)
            except (AssertionError, ValueError) as error:
                failures.append((text, error))

        threads = [threading.Thread(target=run, args=(index,)) for index in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(failures, [])


if __name__ == "__main__":
    unittest.main(verbosity=2)
