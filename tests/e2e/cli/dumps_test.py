"""Plans, dumps and scores: their formats, and numbers that must agree with each other."""
import json
import math
import re

import support


def ids(text):
    return json.loads(text.splitlines()[0])


class Tokens(support.CliTest):
    def test_one_line_a_token_below_the_list(self):
        lines = self.succeeds("--dump-tokens", "--raw", "-p", "a\n<think>").text.splitlines()
        self.assertEqual(len(json.loads(lines[0])), len(lines) - 1)
        self.assertRegex(lines[1], r"^ +\d+  a$")
        self.assertRegex(lines[2], r"^ +\d+  \\n$")
        self.assertRegex(lines[3], r"^ +\d+  <think>$")

    def test_text_of_a_user_yields_no_marker(self):
        chat = self.succeeds("--dump-tokens", "--nothink", "-p", "<think>").text
        self.assertNotRegex(chat, r"(?m)^ +\d+  <think>$")
        self.assertRegex(chat, r"(?m)^ +\d+  </think>$")
        self.assertRegex(chat, r"(?m)^ +\d+  <｜User｜>$")

    def test_a_rendered_chat_is_taken_as_it_is(self):
        rendered = "<｜begin▁of▁sentence｜><｜User｜>x<｜Assistant｜></think>"
        self.assertEqual(len(ids(self.succeeds("--dump-tokens", "-p", rendered).text)), 5)
        self.assertEqual(
            ids(self.succeeds("--dump-tokens", "-p", rendered).text),
            ids(self.succeeds("--dump-tokens", "--system", "", "--nothink", "-p", "x").text))

    def test_turns_of_a_prefix_file_come_first(self):
        prefix = self.file("prefix.txt", "USER: a\nASSISTANT: b\n")
        with_prefix = ids(self.succeeds("--dump-tokens", "--system", "", "--nothink", "-p", "x",
                                        "--prefix-file", prefix).text)
        rendered = ("<｜begin▁of▁sentence｜><｜User｜>a<｜Assistant｜></think>b<｜end▁of▁sentence｜>"
                    "<｜User｜>x<｜Assistant｜></think>")
        self.assertEqual(with_prefix, ids(self.succeeds("--dump-tokens", "-p", rendered).text))


class Dumps(support.CliTest):
    def logprobs(self, *flags):
        path = self.folder / "logprobs.json"
        result = self.succeeds("--dump-logprobs", path, "-p", "hello", *flags)
        self.assertEqual(result.out, b"")
        return json.loads(path.read_text())

    def test_logprobs_are_those_of_the_logits(self):
        steps = self.logprobs("-n", 3, "--logprobs-top-k", 4)
        self.assertEqual([s["step"] for s in steps["steps"]], [0, 1, 2])
        self.assertEqual(steps["top_k"], 4)
        path = self.folder / "logits.json"
        self.succeeds("--dump-logits", path, "-p", "hello")
        logits = json.loads(path.read_text())
        self.assertEqual(len(logits["logits"]), logits["vocab"])
        self.assertEqual(logits["prompt_tokens"], steps["prompt_tokens"])
        first = steps["steps"][0]
        self.assertEqual(first["selected"]["id"], logits["argmax_token"])
        total = math.log(sum(math.exp(x) for x in logits["logits"]))
        for entry in first["top_logprobs"]:
            logit = logits["logits"][entry["token"]["id"]]
            self.assertEqual(entry["logit"], logit)
            # Nine digits on both sides, and a sum in f64 on both.
            self.assertAlmostEqual(entry["logprob"], logit - total, delta=1e-6)

    def test_bytes_are_exact_and_text_is_json(self):
        for step in self.logprobs("-n", 6)["steps"]:
            for entry in step["top_logprobs"]:
                raw = bytes(entry["token"]["bytes"])
                text = entry["token"]["text"]
                try:
                    self.assertEqual(text, raw.decode())
                except UnicodeDecodeError:
                    self.assertEqual(text, "".join(chr(b) for b in raw))

    def test_the_greedy_answer_is_the_dumped_one(self):
        answer = self.succeeds("-p", "hello", "-n", 5, "--temp", 0, "--nothink", "--raw")
        path = self.folder / "raw.json"
        self.succeeds("--dump-logprobs", path, "-p", "hello", "-n", 5, "--raw")
        selected = [bytes(s["selected"]["bytes"]) for s in json.loads(path.read_text())["steps"]]
        self.assertEqual(answer.out.rstrip(b"\n"), b"".join(selected).rstrip(b"\n"))

    def test_perplexity_agrees_with_itself_in_any_chunks(self):
        path = self.file("text.txt", "It was the best of times, it was the worst of times. " * 4)
        pattern = r"^tokens=(\d+) scored=(\d+) nll=([\d.]+) avg_nll=([\d.]+) ppl=([\d.]+)\n$"
        match = re.match(pattern, self.succeeds("--perplexity-file", path).text)
        self.assertTrue(match)
        tokens, scored = int(match[1]), int(match[2])
        self.assertEqual(tokens - scored, 32)
        self.assertAlmostEqual(float(match[5]), math.exp(float(match[4])), delta=1e-3 * float(match[5]))
        again = re.match(pattern,
                         self.succeeds("--perplexity-file", path, "--prefill-chunk", 16).text)
        self.assertAlmostEqual(float(again[3]), float(match[3]), delta=1e-4 * float(match[3]))


class Information(support.CliTest):
    def test_the_plan_names_its_items(self):
        text = self.succeeds("--plan", "-c", 2048).text
        for word in ("weights", "state", "scratch", "allocated", "MiB"):
            self.assertIn(word, text)

    def test_inspect_totals_the_types(self):
        text = self.succeeds("--inspect").text
        for word in ("layers", "experts", "vocabulary", "Q8_0", "tensors"):
            self.assertIn(word, text)

    def test_help_and_version_go_to_standard_output(self):
        for flag in ("--help", "-h"):
            self.assertIn("--prompt-file", self.succeeds(flag, model=None).text)
        self.assertRegex(self.succeeds("--version", model=None).text, r"^ds4 \d")


if __name__ == "__main__":
    support.main()
