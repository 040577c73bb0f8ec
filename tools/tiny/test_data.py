"""Unit tests of the parts that need no PyTorch: tokenizer, chat encoding, generators, packing.

    python3 tools/tiny/test_data.py

Vectors are read from ../shared/data beside the project and skipped where that is absent.
"""
import gzip
import json
import os
import random
import unittest

import bpe
import chat
import judge
import make_eval
import packs
import talk
import toolwork

SHARED = os.path.join(packs.HERE, "..", "..", "..", "shared", "data")


class TokenizerTest(unittest.TestCase):
    def test_ascii_path_equals_general_path(self):
        rng = random.Random(1)
        for _ in range(20000):
            text = "".join(rng.choice('ab Z9 \n\r\t.,("_ 0') for _ in range(rng.randint(0, 12)))
            general = []
            for digits, run in bpe._runs(text, str.isdigit):
                general += [run[i:i + 3] for i in range(0, len(run), 3)] if digits else bpe._third_stage(run)
            self.assertEqual(bpe.pre_tokenize(text), general)

    def test_round_trip_and_control_tokens(self):
        tokenizer = packs.load_tokenizer()
        text = f"{bpe.BOS}{bpe.USER}Grüße, 你好 1234!\n\n{bpe.ASSISTANT}{bpe.THINK}"
        ids = tokenizer.encode(text)
        self.assertEqual(tokenizer.decode(ids), text)
        self.assertEqual(ids[0], 0)
        self.assertNotIn(tokenizer.control[bpe.USER], tokenizer.encode_plain(bpe.USER))

    def test_digits_stay_single(self):
        tokenizer = packs.load_tokenizer()
        self.assertEqual(len(tokenizer.encode("4096")), 4)

    @unittest.skipUnless(os.path.isdir(SHARED), "../shared/data is absent")
    def test_published_vectors(self):
        with gzip.open(os.path.join(SHARED, "tokenizer", "tokenizer.json.gz")) as source:
            document = json.load(source)
        tokenizer = bpe.Tokenizer([])
        tokenizer.ranks = {tuple(m.split(" ")): i for i, m in enumerate(document["model"]["merges"])}
        tokenizer.ids = document["model"]["vocab"]
        tokenizer.control = {a["content"]: a["id"] for a in document["added_tokens"]}
        names = sorted(tokenizer.control, key=len, reverse=True)
        tokenizer.split = bpe.re.compile("(" + "|".join(bpe.re.escape(t) for t in names) + ")").split
        with open(os.path.join(SHARED, "tokenizer", "tokenizer_vectors.json"), encoding="utf-8") as source:
            for vector in json.load(source):
                self.assertEqual(tokenizer.encode(vector["text"]), vector["ids"], vector["text"])


class ChatTest(unittest.TestCase):
    @unittest.skipUnless(os.path.isdir(SHARED), "../shared/data is absent")
    def test_official_vectors(self):
        for number, thinking in ((1, True), (2, True), (3, True), (4, False)):
            folder = os.path.join(SHARED, "encoding")
            with open(os.path.join(folder, f"test_input_{number}.json"), encoding="utf-8") as source:
                given = json.load(source)
            if isinstance(given, dict):
                given["messages"][0]["tools"] = given["tools"]
                given = given["messages"]
            with open(os.path.join(folder, f"test_output_{number}.txt"), encoding="utf-8") as source:
                self.assertEqual(chat.render_text(given, thinking), source.read())

    def test_spans_of_the_model_end_their_turn(self):
        rng = random.Random(2)
        for maker in packs.MAKERS.values():
            for _ in range(20):
                case = maker(rng)
                for text, own in chat.render(case.messages, case.thinking):
                    self.assertEqual(own, text.endswith(bpe.EOS))


class GeneratorTest(unittest.TestCase):
    def test_arithmetic_is_right(self):
        rng = random.Random(3)
        for _ in range(2000):
            a, b, sign = rng.randint(0, 999), rng.randint(0, 999), rng.choice("+-")
            steps, value = talk.arithmetic_steps(a, b, sign)
            self.assertEqual(value, a + b if sign == "+" else a - b)
            self.assertTrue(steps.endswith(f"{value}."))

    def test_edits_name_one_line(self):
        rng = random.Random(4)
        for _ in range(300):
            case, text = toolwork.make_agent(rng, scored=True), None
            for message in case.messages:
                if message["role"] == "tool" and ": lines 1-" in message["content"] and text is None:
                    text = message["content"]
                for call in message.get("tool_calls", []):
                    if call["function"]["name"] == "edit":
                        self.assertEqual(text.count(call["function"]["arguments"]["old"] + "\n") +
                                         text.endswith(call["function"]["arguments"]["old"]), 1)

    def test_batches_are_a_function_of_the_step(self):
        tokenizer = packs.load_tokenizer()
        first = packs.batch(tokenizer, 1, 5, 2, 2048, 0.5)
        self.assertEqual(first, packs.batch(tokenizer, 1, 5, 2, 2048, 0.5))
        self.assertNotEqual(first, packs.batch(tokenizer, 1, 6, 2, 2048, 0.5))
        for ids, weights, blocks in first:
            self.assertEqual((len(ids), len(weights), len(blocks)), (2048, 2048, 16))


    def test_look_alike_tools_are_told_apart(self):
        rng, made = random.Random(6), set()
        for _ in range(400):
            tools = toolwork.look_alike_tools(rng, 6)
            names = [t["function"]["name"] for t, _ in tools]
            phrases = {phrase.replace(" a ", " the ") for _, phrase in tools}
            self.assertEqual((len(set(names)), len(phrases)), (6, 6))
            made.update(names)
        shares = [sum(c.isupper() for n in made for c in n), sum("_" in n for n in made)]
        self.assertGreater(min(shares), len(made) // 4)

    def test_calls_of_every_kind_fit_their_schemas(self):
        rng = random.Random(7)
        for maker in packs.MAKERS.values():
            for _ in range(40):
                case = maker(rng)
                for turn in make_eval.turns_of(case, False):
                    if turn["expect"]["calls"]:
                        verdict = judge.Verdict(turn["expect"]["text"], turn, case.thinking)
                        self.assertEqual((verdict.valid, verdict.right), (True, True), turn["expect"]["text"])

    def test_recipes_share_out_all_tokens(self):
        for recipe in packs.RECIPES.values():
            for progress, long_rows in ((0.0, False), (0.2, False), (1.0, False), (0.5, True)):
                shares = recipe.shares(progress, long_rows)
                self.assertAlmostEqual(sum(shares.values()), 1.0)
                self.assertLessEqual(set(shares), set(packs.MAKERS))

    def test_weights_of_names(self):
        tokenizer = packs.load_tokenizer()
        call = talk.assistant("", "I call go_up with lo_ad = x = 1, k = 2.", [("go_up", {"lo_ad": "x = 1", "k": 2})])
        case = talk.Case("tool_call", [talk.user("go up"), call], True)
        ids, plain = packs.encode_case(tokenizer, case, packs.RECIPES["tools"])
        same, named = packs.encode_case(tokenizer, case, packs.RECIPES["names"])
        self.assertEqual(ids, same)
        heavy = "".join(tokenizer.decode([i]) if weight == 3.0 else "~" for i, weight in zip(ids, named))
        for part in ("go_up with lo_ad =", " k =", 'lo_ad" string="true">', 'k" string="false">', 'go_up">'):
            self.assertIn(part, heavy)
        self.assertNotIn("1", heavy)
        self.assertNotIn("2", heavy)
        self.assertEqual({w for w in plain}, {0.01, 1.0})
        self.assertEqual({w for w in named}, {0.002, 1.0, 3.0})

    def test_mixtures_differ_and_repeat(self):
        tokenizer = packs.load_tokenizer()
        rows = {name: packs.batch(tokenizer, 1, 5, 1, 2048, 1.0, mixture=name) for name in packs.RECIPES}
        self.assertEqual(rows["names"], packs.batch(tokenizer, 1, 5, 1, 2048, 1.0, mixture="names"))
        self.assertNotEqual(rows["tools"][0][0], rows["even"][0][0])
        self.assertEqual(rows["tools"][0][0], rows["names"][0][0])
        self.assertNotEqual(rows["tools"][0][1], rows["names"][0][1])


class JudgeTest(unittest.TestCase):
    def turn(self, ability, index=0):
        case = next(make_eval.cases(packs.load_tokenizer(), ability, 1, f"judge{index}"))
        return case["turns"][0], case["thinking"]

    def verdict(self, text, turn, thinking):
        v = judge.Verdict(text, turn, thinking)
        return v.clean, v.reasoning, v.valid, v.right

    def test_expected_text_passes_and_changes_fail(self):
        for index in range(20):
            turn, thinking = self.turn("tool_call", index)
            good = turn["expect"]["text"]
            name = turn["expect"]["calls"][0]["name"]
            self.assertEqual(self.verdict(good, turn, thinking), (True, True, True, True))
            self.assertEqual(self.verdict(good.replace(f'"{name}"', '"other"'), turn, thinking)[2:], (False, False))
            self.assertEqual(self.verdict(good.removesuffix(bpe.EOS), turn, thinking), (False, True, False, False))
            self.assertEqual(self.verdict(good.replace(f"</{bpe.DSML}invoke>", ""), turn, thinking)[2:], (False, False))
            self.assertFalse(self.verdict(bpe.THINK + good, turn, thinking)[1])
            self.assertFalse(self.verdict(good.replace(bpe.EOS, bpe.USER + bpe.EOS), turn, thinking)[0])
            silent = (f"I say.{bpe.END_THINK}" if thinking else "") + "Done." + bpe.EOS
            self.assertEqual(self.verdict(silent, turn, thinking), (True, True, False, False))

    def test_answers_are_numbers_not_wordings(self):
        turn, thinking = self.turn("recall_1500")
        head = f"I look.{bpe.END_THINK}" if thinking else ""
        answer = turn["expect"]["answer"]
        self.assertTrue(self.verdict(f"{head}It is {answer}.{bpe.EOS}", turn, thinking)[3])
        self.assertFalse(self.verdict(f"{head}It is {answer}0.{bpe.EOS}", turn, thinking)[3])


if __name__ == "__main__":
    unittest.main()
