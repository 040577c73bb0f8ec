"""ds4-gguf as users run it: what it prints, which code it ends with, and that a run that fails leaves
no file behind."""
import json
import os
import pathlib
import resource
import shutil
import signal
import subprocess
import tempfile
import unittest

BINARY = os.environ["DS4_GGUF_BINARY"]
MODEL = os.environ["DS4_TEST_MODEL"]
GOLDEN = pathlib.Path("../shared/data/golden/tinyB")


class ToolTest(unittest.TestCase):
    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="ds4-gguf-"))
        self.addCleanup(shutil.rmtree, self.folder)

    def tool(self, *arguments, stdin="", limit_bytes=None):
        def limit():
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, limit_bytes))

        return subprocess.run([BINARY, *map(str, arguments)], input=stdin, capture_output=True,
                              text=True, timeout=120, preexec_fn=limit if limit_bytes else None)

    def succeeds(self, *arguments, **named):
        result = self.tool(*arguments, **named)
        self.assertEqual(result.returncode, 0, result.stderr)
        return result.stdout

    def fails(self, code, message, *arguments, **named):
        result = self.tool(*arguments, **named)
        self.assertEqual(result.returncode, code, result.stderr)
        self.assertIn(message, result.stderr)
        self.assertEqual(result.stdout, "")

    def test_help_of_every_command(self):
        self.assertIn("inspect", self.succeeds("--help"))
        for command in ("inspect", "convert", "synth", "tokenize", "logits", "greedy"):
            self.assertIn("Usage:", self.succeeds(command, "--help"))

    def test_wrong_command_lines(self):
        for arguments in ([], ["no-such-command"], ["inspect"], ["inspect", MODEL, "--no-such-flag"],
                          ["synth", "--shape", "tiny"], ["synth", "--shape", "round", "--out", "x"],
                          ["convert", "--hf", "x"], ["tokenize"]):
            with self.subTest(arguments=arguments):
                self.fails(2, "", *arguments)
        out = self.folder / "x.gguf"
        tiny = ["synth", "--shape", "tiny", "--out", out]
        self.fails(2, "unknown recipe", *tiny, "--quant", "q9")
        self.fails(2, "unknown type", *tiny, "--type", "all=q9")
        self.fails(2, "neither a class", *tiny, "--type", "nothing=f16")
        self.fails(2, "blocks of 256", *tiny, "--type", "attention=q4_k")
        self.fails(2, "layers", *tiny, "--layers", "7")
        self.assertEqual(list(self.folder.iterdir()), [])

    def greedy(self, items):
        paths = [self.folder / "items", self.folder / "answers"]
        paths[0].write_text("".join(json.dumps(item) + "\n" for item in items))
        self.succeeds("greedy", "-m", MODEL, "--in", paths[0], "--out", paths[1], "--stop", -1, "--threads", 1)
        return [json.loads(line) for line in paths[1].read_text().splitlines()]

    def test_greedy_goes_on_as_it_chooses(self):
        """Spans over what `limit` wrote choose exactly that; drafts start with the second token."""
        start = list(range(5, 45))
        written = self.greedy([{"id": "a", "ids": start, "limit": 12}])[0]["tokens"]
        self.assertEqual(len(written), 12)
        forced, parts = self.greedy([{"id": 0, "ids": start + written, "spans": [[40, 52]]},
                                     {"id": 1, "ids": start + written, "spans": [[1, 3], [43, 45]], "limit": 4}])
        self.assertEqual(forced["choices"], [written])
        self.assertEqual(len(forced["drafts"][0]), 12)
        self.assertEqual(parts["choices"][1], written[3:5])
        self.assertEqual(parts["drafts"][0][0], None)
        self.assertEqual(len(parts["tokens"]), 4)
        for line in ('{"id": 1}', '{"id": 1, "ids": []}', '{"id": 1, "ids": [5, 6], "spans": [[1, 3]]}', "x",
                     '{"id": 1, "ids": [5, 6], "spans": [[0, 1]]}'):
            (self.folder / "items").write_text(line + "\n")
            self.fails(1, "line 1", "greedy", "-m", MODEL, "--in", self.folder / "items", "--out", self.folder / "x")

    def test_inspect(self):
        text = self.succeeds("inspect", MODEL)
        self.assertIn("deepseek4.block_count", text)
        self.assertIn("blk.2.indexer.proj.weight", text)
        self.assertIn("IQ2_XXS", text)
        self.assertNotIn("token_embd", self.succeeds("inspect", "--metadata", MODEL))
        self.assertNotIn("block_count", self.succeeds("inspect", "--tensors", MODEL))
        self.fails(1, "No such file", "inspect", self.folder / "none.gguf")
        self.fails(2, "directory", "inspect", self.folder)
        text = self.folder / "text.gguf"
        text.write_text("not a model")
        self.fails(1, "not a GGUF file", "inspect", text)

    def test_control_bytes_of_a_file_do_not_reach_the_terminal(self):
        content = pathlib.Path(MODEL).read_bytes()
        changed = content.replace(b"tiny trial shape", b"tiny \x1b[2J shape!", 1)
        self.assertNotEqual(content, changed)
        path = self.folder / "escape.gguf"
        path.write_bytes(changed)
        self.assertNotIn("\x1b", self.succeeds("inspect", path))

    def test_synth_repeats_itself(self):
        for name, threads in (("a", 1), ("b", 3)):
            self.succeeds("synth", "--shape", "tiny", "--layers", 2, "--seed", 5, "--threads", threads,
                          "--out", self.folder / name)
        self.assertEqual((self.folder / "a").read_bytes(), (self.folder / "b").read_bytes())

    def test_a_full_disk_leaves_nothing(self):
        # A limit on the size of a file stands in for the disk.
        out = self.folder / "x.gguf"
        self.fails(1, "x.gguf", "synth", "--shape", "tiny", "--out", out, limit_bytes=1 << 20)
        self.assertEqual(list(self.folder.iterdir()), [])
        self.fails(2, "/dev/full is not a file", "synth", "--shape", "tiny", "--out", "/dev/full")
        self.fails(1, "none", "synth", "--shape", "tiny", "--out", self.folder / "none" / "x")

    def test_logits(self):
        ids = self.folder / "ids.json"
        out = self.folder / "out.f32"
        ids.write_text("[5, 70, 71, 300]")
        results = []
        for flags in (["--chunk", 1], ["--chunk", 3], ["--kv", "exact"]):
            self.succeeds("logits", "-m", MODEL, "--ids", ids, "--out", out, *flags)
            results.append(out.read_bytes())
        self.assertEqual(results[0], results[1])
        self.assertNotEqual(results[0], results[2])
        self.assertEqual(len(results[0]) % (4 * 4), 0)

    def test_logits_refuses_bad_input_and_leaves_nothing(self):
        ids = self.folder / "ids.json"
        out = self.folder / "out.f32"
        run = ["logits", "-m", MODEL, "--ids", ids, "--out", out]
        ids.write_text("[1, 99999999]")
        self.fails(2, "token id 99999999", *run)
        for text, message in (("[]", "empty"), ("{}", "JSON list"), ("[1,", "JSON list"),
                              ("[1.5]", "JSON list"), ("[-1]", "JSON list"), ("[\"a\"]", "JSON list"),
                              ("[4294967297]", "JSON list")):
            ids.write_text(text)
            with self.subTest(text=text):
                self.fails(1, message, *run)
        ids.write_text(json.dumps([7] * 400))
        self.fails(1, "out.f32", *run, limit_bytes=1 << 16)
        self.fails(1, "none.json", "logits", "-m", MODEL, "--ids", "none.json", "--out", out)
        self.assertEqual([path.name for path in self.folder.iterdir()], ["ids.json"])

    def test_tokenize(self):
        text = self.succeeds("tokenize", "--tokenizer", MODEL, stdin='"A"\n""\n"<think>"\n')
        lines = [json.loads(line) for line in text.splitlines()]
        self.assertEqual(lines[:2], [[3 + ord("A")], []])
        self.assertEqual(len(lines[2]), len("<think>"))
        special = self.succeeds("tokenize", "--special", "--tokenizer", MODEL, stdin='"<think>"\n')
        self.assertEqual(len(json.loads(special)), 1)
        self.fails(1, "line 1", "tokenize", "--tokenizer", MODEL, stdin="no json\n")

    def test_convert_refuses_what_is_no_checkpoint(self):
        out = self.folder / "x.gguf"
        self.fails(1, "model.safetensors", "convert", "--hf", self.folder, "--out", out)
        (self.folder / "model.safetensors").write_bytes(b"\xff" * 64)
        self.fails(1, "safetensors", "convert", "--hf", self.folder, "--out", out)
        self.assertFalse(out.exists())

    def test_convert(self):
        if not GOLDEN.is_dir():
            self.skipTest(f"{GOLDEN} is not there")
        out = self.folder / "golden.gguf"
        mtp = self.folder / "mtp.gguf"
        self.fails(1, "golden.gguf", "convert", "--hf", GOLDEN, "--out", out, limit_bytes=1 << 20)
        self.assertEqual(list(self.folder.iterdir()), [])
        self.succeeds("convert", "--hf", GOLDEN, "--out", out, "--mtp-out", mtp, "--type", "experts=q2_k",
                      "--type", "blk.0.ffn_down_exps=q4_k")
        text = self.succeeds("inspect", "--tensors", out)
        types = {line.split()[0]: line.split()[1] for line in text.splitlines()}
        self.assertEqual(types["blk.0.ffn_down_exps.weight"], "Q4_K")
        self.assertEqual(types["blk.1.ffn_down_exps.weight"], "Q2_K")
        self.assertEqual(types["output.weight"], "Q8_0")
        self.assertFalse(any(name.startswith("mtp.") for name in types))
        self.assertIn("mtp.0.e_proj.weight", self.succeeds("inspect", "--tensors", mtp))


if __name__ == "__main__":
    unittest.main()
