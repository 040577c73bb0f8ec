"""What the protocols promise beyond what client libraries exercise: structured output, tool choice,
arguments as they are written, log probabilities, counts, refusals.

Runs ds4_scripted_server (DS4_SCRIPTED_SERVER).  Where a mask leaves out what the script wants, its
model takes the allowed token of the lowest id.
"""
import itertools
import json
import os
import re
import threading
import unittest

from support import Server, body, status

POINT = {"type": "object", "properties": {"x": {"type": "integer"}, "y": {"type": "integer"}},
         "required": ["x", "y"], "additionalProperties": False}
PLACE = {"type": "object", "properties": {"place": {"type": "string"}, "days": {"type": "integer"}},
         "required": ["place"], "additionalProperties": False}
CALL = ('\n\n<｜DSML｜tool_calls>\n<｜DSML｜invoke name="look">\n<｜DSML｜parameter name="place" '
        'string="true">Oslo and "Bergen"</｜DSML｜parameter>\n<｜DSML｜parameter name="days" '
        'string="false">2</｜DSML｜parameter>\n</｜DSML｜invoke>\n</｜DSML｜tool_calls>')
RULES = [
    {"trigger": "ponder", "answer": "Free: {[</think>{\"x\": 3, \"y\": -4}"},
    {"trigger": "a point", "answer": "{\"x\": 3, \"y\": -4}"},
    {"trigger": "talk", "answer": "I would rather talk."},
    {"trigger": "any object", "answer": "{\"a\": [1, {\"b\": null}]}"},
    {"trigger": "a call", "answer": "Let me see." + CALL},
]
PATHS = {"chat": "/v1/chat/completions", "messages": "/v1/messages", "responses": "/v1/responses"}


def ask_for(protocol, prompt, think=False, most=500, **more):
    if protocol == "responses":
        ask = {"input": prompt, "max_output_tokens": most,
               "reasoning": {"effort": "high" if think else "none"}}
    else:
        ask = {"messages": [{"role": "user", "content": prompt}], "max_tokens": most,
               "reasoning_effort": "high" if think else "none"}
    return {**ask, **more}


def format_for(protocol, schema):
    """The request's fields that ask for JSON; schema None: any object."""
    if protocol == "chat":
        if schema is None:
            return {"response_format": {"type": "json_object"}}
        return {"response_format": {"type": "json_schema",
                                    "json_schema": {"name": "n", "strict": True, "schema": schema}}}
    inline = {"type": "json_object"} if schema is None else {"type": "json_schema", "name": "n",
                                                             "schema": schema}
    return {"output_config" if protocol == "messages" else "text": {"format": inline}}


def tool_for(protocol, name, schema, strict=False):
    if protocol == "messages":
        return {"name": name, "input_schema": schema, "strict": strict}
    function = {"name": name, "parameters": schema, "strict": strict}
    return {"type": "function", "function": function} if protocol == "chat" else {
        "type": "function", **function}


def choice_for(protocol, name=None):
    """A tool choice that requires a call, of that tool when it is named."""
    if protocol == "messages":
        return {"type": "tool", "name": name} if name else {"type": "any"}
    if not name:
        return "required"
    return {"type": "function", "function": {"name": name}} if protocol == "chat" else {
        "type": "function", "name": name}


def text_of(protocol, reply):
    if protocol == "chat":
        return reply["choices"][0]["message"]["content"]
    if protocol == "messages":
        return "".join(block["text"] for block in reply["content"] if block["type"] == "text")
    return "".join(part["text"] for item in reply["output"] if item["type"] == "message"
                   for part in item["content"])


def calls_of(protocol, reply):
    if protocol == "chat":
        return [(call["function"]["name"], json.loads(call["function"]["arguments"]))
                for call in reply["choices"][0]["message"].get("tool_calls", [])]
    if protocol == "messages":
        return [(block["name"], block["input"]) for block in reply["content"]
                if block["type"] == "tool_use"]
    return [(item["name"], json.loads(item["arguments"])) for item in reply["output"]
            if item["type"] == "function_call"]


def events_of(reply):
    """The JSON of a stream's events."""
    return [json.loads(line[6:]) for line in reply.decode().splitlines()
            if line.startswith("data: {")]


def argument_pieces(protocol, events):
    """Of each call: its name and the pieces of its arguments."""
    calls = []
    for event in events:
        if protocol == "chat":
            for delta in event["choices"][0]["delta"].get("tool_calls", []) if event["choices"] else []:
                if "id" in delta:
                    calls.append((delta["function"]["name"], []))
                if delta["function"]["arguments"]:
                    calls[-1][1].append(delta["function"]["arguments"])
        elif protocol == "messages":
            if event.get("content_block", {}).get("type") == "tool_use":
                calls.append((event["content_block"]["name"], []))
            if event.get("delta", {}).get("type") == "input_json_delta":
                calls[-1][1].append(event["delta"]["partial_json"])
        else:
            if event["type"] == "response.output_item.added" and "call_id" in event["item"]:
                calls.append((event["item"]["name"], []))
            if event["type"] == "response.function_call_arguments.delta":
                calls[-1][1].append(event["delta"])
    return calls


class ServerTest(unittest.TestCase):
    options = {}

    @classmethod
    def setUpClass(cls):
        cls.server = Server(rules=RULES, otherwise="Hello.", **cls.options)

    @classmethod
    def tearDownClass(cls):
        assert cls.server.stop() == 0

    def ask(self, protocol, ask, code=200):
        reply = self.server.post(PATHS[protocol], ask)
        self.assertEqual(status(reply), code, reply)
        return body(reply)

    def refused(self, protocol, ask):
        return self.ask(protocol, ask, 400)["error"]["message"]


class StructuredOutput(ServerTest):
    def test_a_schema_holds_the_answer(self):
        for protocol in PATHS:
            for text in ("a point", "talk"):
                reply = self.ask(protocol, ask_for(protocol, text, **format_for(protocol, POINT)))
                point = json.loads(text_of(protocol, reply))
                self.assertEqual(set(point), {"x", "y"})
                if text == "a point":
                    self.assertEqual(point, {"x": 3, "y": -4})

    def test_reasoning_is_free(self):
        ask = ask_for("chat", "ponder", think=True, **format_for("chat", POINT))
        message = self.ask("chat", ask)["choices"][0]["message"]
        self.assertEqual(message["reasoning_content"], "Free: {[")
        self.assertEqual(json.loads(message["content"]), {"x": 3, "y": -4})

    def test_random_sampling_stays_within(self):
        schema = {"type": "object", "properties": {
            "kind": {"enum": ["a", "b"]}, "flags": {"type": "array", "items": {"type": "boolean"},
                                                    "maxItems": 3}}, "required": ["kind", "flags"]}
        for seed in range(8):
            ask = ask_for("chat", "talk", seed=seed, temperature=100, top_k=0, min_p=0,
                          **format_for("chat", schema))
            value = json.loads(text_of("chat", self.ask("chat", ask)))
            self.assertIn(value["kind"], ("a", "b"))
            self.assertLessEqual(len(value["flags"]), 3)

    def test_any_object(self):
        for protocol in PATHS:
            ask = ask_for(protocol, "any object", **format_for(protocol, None))
            self.assertEqual(json.loads(text_of(protocol, self.ask(protocol, ask))),
                             {"a": [1, {"b": None}]})

    def test_what_is_not_understood_is_refused_with_its_path(self):
        schema = {"type": "object", "properties": {"a": {"type": "integer", "multipleOf": 2}}}
        where = {"chat": "response_format.json_schema.schema", "responses": "text.format.schema",
                 "messages": "output_config.format.schema"}
        for protocol in PATHS:
            message = self.refused(protocol, ask_for(protocol, "x", **format_for(protocol, schema)))
            self.assertIn(where[protocol] + ".properties.a: ", message)
            self.assertIn('"multipleOf"', message)
            tools = [tool_for(protocol, "f", schema, strict=True)]
            self.assertIn('"multipleOf"', self.refused(protocol, ask_for(protocol, "x", tools=tools)))
            tools = [tool_for(protocol, "f", schema)]
            self.ask(protocol, ask_for(protocol, "x", tools=tools))

    def test_users_with_and_without_masks_at_once(self):
        failures = []

        def run(index):
            for _ in range(3):
                masked = index % 2 == 0
                more = format_for("chat", POINT) if masked else {}
                reply = text_of("chat", self.ask("chat", ask_for("chat", f"talk {index}", **more)))
                good = set(json.loads(reply)) == {"x", "y"} if masked else "talk" in reply
                if not good:
                    failures.append(reply)

        threads = [threading.Thread(target=run, args=(index,)) for index in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(failures, [])


class ToolCalls(ServerTest):
    options = {"per_run_us": 1000}  # pieces that nobody has taken yet are joined

    def test_a_required_call_comes(self):
        for protocol in PATHS:
            tools = [tool_for(protocol, "first", {"type": "object", "properties": {}}),
                     tool_for(protocol, "point", POINT)]
            ask = ask_for(protocol, "talk", tools=tools, tool_choice=choice_for(protocol))
            self.assertEqual(len(calls_of(protocol, self.ask(protocol, ask))[:1]), 1)
            ask = ask_for(protocol, "talk", tools=tools, tool_choice=choice_for(protocol, "point"))
            name, arguments = calls_of(protocol, self.ask(protocol, ask))[0]
            self.assertEqual(name, "point")
            self.assertEqual(set(arguments), {"x", "y"})

    def test_choices_that_name_no_tool(self):
        for protocol in PATHS:
            ask = ask_for(protocol, "talk", tool_choice=choice_for(protocol, "other"),
                          tools=[tool_for(protocol, "point", POINT)])
            self.assertIn("other", self.refused(protocol, ask))
            ask = ask_for(protocol, "talk", tool_choice=choice_for(protocol))
            self.assertIn("tool_choice", self.refused(protocol, ask))

    def test_allowed_tools(self):
        tools = [tool_for("responses", "first", POINT), tool_for("responses", "second", POINT)]
        choice = {"type": "allowed_tools", "mode": "required",
                  "tools": [{"type": "function", "name": "second"}]}
        ask = ask_for("responses", "talk", tools=tools, tool_choice=choice)
        self.assertEqual(calls_of("responses", self.ask("responses", ask))[0][0], "second")

    def test_arguments_stream_as_they_are_written(self):
        wanted = {"place": 'Oslo and "Bergen"', "days": 2}
        for protocol in PATHS:
            ask = ask_for(protocol, "a call", tools=[tool_for(protocol, "look", PLACE)])
            self.assertEqual(calls_of(protocol, self.ask(protocol, ask)), [("look", wanted)])
            reply = self.server.post(PATHS[protocol], {**ask, "stream": True})
            self.assertNotIn("DSML", reply.decode())
            calls = argument_pieces(protocol, events_of(reply))
            self.assertEqual([name for name, _ in calls], ["look"])
            self.assertEqual(json.loads("".join(calls[0][1])), wanted)
            self.assertGreater(len(calls[0][1]), 2, calls)

    def test_a_call_that_is_cut_is_not_given(self):
        for protocol in PATHS:
            ask = ask_for(protocol, "a call", most=90, tools=[tool_for(protocol, "look", PLACE)])
            reply = self.ask(protocol, ask)
            if protocol == "responses":
                self.assertEqual(reply["status"], "incomplete")
                calls = [item for item in reply["output"] if item["type"] == "function_call"]
                self.assertTrue(all(call["status"] == "incomplete" for call in calls))
            else:
                self.assertEqual(calls_of(protocol, reply), [])
            reply = self.server.post(PATHS[protocol], {**ask, "stream": True}).decode()
            self.assertNotIn("DSML", reply)
            self.assertIn({"chat": '"finish_reason":"length"', "messages": '"max_tokens"',
                           "responses": "response.incomplete"}[protocol], reply)


class Details(ServerTest):
    options = {"context": 2048}

    def test_log_probabilities(self):
        ask = ask_for("chat", "talk", logprobs=True, top_logprobs=3)
        choice = self.ask("chat", ask)["choices"][0]
        tokens = choice["logprobs"]["content"]
        self.assertEqual("".join(token["token"] for token in tokens), choice["message"]["content"])
        self.assertTrue(all(len(token["top_logprobs"]) == 3 for token in tokens))
        self.assertTrue(all(token["logprob"] <= 0 for token in tokens))

    def test_counted_tokens_are_the_usage(self):
        ask = ask_for("messages", "talk to me", system="Be brief.",
                      tools=[tool_for("messages", "look", PLACE)])
        reply = self.server.post("/v1/messages/count_tokens",
                                 {key: ask[key] for key in ("messages", "system", "tools",
                                                            "reasoning_effort")})
        usage = self.ask("messages", ask)["usage"]
        self.assertEqual(body(reply)["input_tokens"],
                         usage["input_tokens"] + usage["cache_read_input_tokens"] +
                         usage["cache_creation_input_tokens"])

    def test_overflow_has_the_protocols_shape_and_numbers(self):
        for protocol in PATHS:
            error = self.ask(protocol, ask_for(protocol, "y" * 3000), 400)["error"]
            self.assertGreater(error["n_prompt_tokens"], 3000)
            self.assertEqual(error["n_ctx"], 2048)
            self.assertEqual(error["type"], "invalid_request_error")
            if protocol != "messages":
                self.assertEqual(error["code"], "context_length_exceeded")
                self.assertEqual(error["param"], "input" if protocol == "responses" else "messages")

    def test_what_is_not_supported_is_refused_by_name(self):
        refused = {
            "chat": {"n": 2, "frequency_penalty": 0.5, "presence_penalty": 1, "logit_bias": {"1": 2},
                     "functions": [], "audio": {}, "prediction": {}, "web_search_options": {},
                     "top_logprobs": 5, "made_up": 1, "temperature": -1, "top_p": 2, "stop": [""],
                     "reasoning_effort": "hard", "response_format": {"type": "xml"}},
            "messages": {"container": "x", "mcp_servers": [], "made_up": 1, "max_tokens": 0,
                         "stop_sequences": 5, "thinking": {"type": "much"},
                         "output_config": {"format": {"type": "xml"}}},
            "responses": {"previous_response_id": "resp_1", "conversation": "c", "background": True,
                          "truncation": "auto", "max_tool_calls": 3, "made_up": 1, "prompt": {"id": "x"},
                          "text": {"format": {"type": "xml"}}, "reasoning": {"effort": "hard"},
                          "include": ["made_up"]},
        }
        for protocol, fields in refused.items():
            for name, value in fields.items():
                ask = {**ask_for(protocol, "talk"), name: value}
                self.assertIn(name, self.refused(protocol, ask))

    def test_images_are_refused(self):
        image = {"chat": {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}},
                 "messages": {"type": "image", "source": {"type": "base64", "data": "AA"}},
                 "responses": {"type": "input_image", "image_url": "data:image/png;base64,AA"}}
        for protocol in PATHS:
            message = [{"role": "user", "content": [image[protocol]]}]
            ask = ask_for(protocol, "x")
            ask["input" if protocol == "responses" else "messages"] = message
            self.assertIn("images", self.refused(protocol, ask))

    def test_a_thinking_budget_closes_the_reasoning(self):
        for more in ({"thinking": {"type": "enabled", "budget_tokens": 3}}, {"thinking_budget": 3},
                     {"chat_template_kwargs": {"thinking_budget": 3}}):
            ask = {**ask_for("chat", "talk", think=True), **more}
            message = self.ask("chat", ask)["choices"][0]["message"]
            self.assertTrue(message["reasoning_content"].startswith("I w"), message)
            self.assertGreater(len(message["content"]), 0)


class Corpus(unittest.TestCase):
    """Every dialect of tool calls that models write (tests/cases/dsml), through the whole server."""

    FOLDER = os.path.join(os.path.dirname(__file__), "..", "..", "cases", "dsml")

    @classmethod
    def setUpClass(cls):
        cls.cases = []
        for name in sorted(os.listdir(cls.FOLDER)):
            with open(os.path.join(cls.FOLDER, name), encoding="utf-8") as file:
                head, rest = file.read().split("--- input\n", 1)
            text, events = rest.split("\n--- events\n", 1)
            options = set(" ".join(re.findall("^options: (.*)$", head, re.M)).split())
            if "cut" in options:  # the unit tests cut at every byte
                continue
            tools = set(re.findall('^call \\d+ "([^"]+)"', events, re.M)) or {"search"}
            cls.cases.append((name, text, options, tools))
        rules = [{"trigger": f"case {name}.", "answer": text} for name, text, _, _ in cls.cases]
        cls.server = Server(rules=rules, otherwise="?", slots=2)

    @classmethod
    def tearDownClass(cls):
        assert cls.server.stop() == 0

    def test_every_protocol_gives_the_same_calls_streamed_and_whole(self):
        self.assertGreater(len(self.cases), 60)
        with_calls = 0
        for name, _, options, tools in self.cases:
            answers = []
            for protocol, stream in itertools.product(PATHS, (False, True)):
                ask = ask_for(protocol, f"case {name}.", think="reasoning" in options, temperature=0,
                              tools=[tool_for(protocol, tool, {"type": "object"})
                                     for tool in sorted(tools)], stream=stream)
                reply = self.server.post(PATHS[protocol], ask)
                with self.subTest(case=name, protocol=protocol, stream=stream):
                    self.assertEqual(status(reply), 200, reply)
                    if "quotes" not in options:
                        self.assertNotIn("DSML", reply.decode())
                if stream:
                    answers.append([(called, json.loads("".join(pieces)))
                                    for called, pieces in argument_pieces(protocol, events_of(reply))])
                else:
                    answers.append(calls_of(protocol, body(reply)))
            with self.subTest(case=name):
                self.assertEqual(answers, [answers[0]] * len(answers))
            with_calls += bool(answers[0])
        self.assertGreater(with_calls, 30)


if __name__ == "__main__":
    unittest.main(verbosity=2)
