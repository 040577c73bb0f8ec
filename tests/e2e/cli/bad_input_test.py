"""What is wrong is told in one clear message and ends with a code other than 0; nothing is left
half-written."""
import struct

import support


class Usage(support.CliTest):
    def test_wrong_command_lines(self):
        cases = [
            ["--no-such-flag"],
            ["-p", "a", "--prompt-file", "b"],
            ["-p"],
            ["-p", ""],
            ["-n", "0", "-p", "a"],
            ["-n", "many", "-p", "a"],
            ["-c", "-5"],
            ["--temp", "101"],
            ["--top-p", "1.5"],
            ["--power", "0"],
            ["--power", "101"],
            ["--seed", "0"],
            ["--kv", "loose"],
            ["--think", "--nothink"],
            ["--dump-tokens"],
            ["--raw"],
            ["--perplexity-file", "x", "-p", "a"],
            ["--dump-logits", "x", "--dump-logprobs", "y", "-p", "a"],
            ["--dir-steering-ffn", "1"],
            ["--prefix-file", "x", "--raw", "-p", "a"],
            ["stray"],
        ]
        for arguments in cases:
            with self.subTest(arguments=arguments):
                result = self.fails(2, "usage:", *arguments)
                self.assertTrue(result.err.startswith("ds4: "))


class Model(support.CliTest):
    def setUp(self):
        super().setUp()
        with open(support.MODEL, "rb") as file:
            self.content = file.read()

    def refused(self, message, path, *flags):
        return self.fails(1, message, *(flags or ("-p", "a", "-n", 1)), model=path)

    def test_files_that_are_no_model(self):
        self.refused("none.gguf", self.folder / "none.gguf")
        self.refused("directory", self.folder)
        self.refused("empty.gguf", self.file("empty.gguf", b""))
        self.refused("GGUF", self.file("text.gguf", "not a model " * 100))

    def test_truncated_anywhere(self):
        size = len(self.content)
        cuts = [1, 3, 4, 8, 16, 23, 24, 25, 64, 300, 1000, 5000, size // 50, size // 10, size // 2,
                size - 4096, size - 1]
        for cut in cuts:
            path = self.file("cut.gguf", self.content[:cut])
            for flags in ([], ["--plan"], ["--inspect"]):
                with self.subTest(cut=cut, flags=flags):
                    self.refused("cut.gguf", path, *flags)

    def test_impossible_counts(self):
        for offset, what in ((8, "tensors"), (16, "metadata")):
            for count in (1 << 62, (1 << 64) - 1, 1 << 33):
                damaged = bytearray(self.content)
                damaged[offset:offset + 8] = struct.pack("<Q", count)
                with self.subTest(what=what, count=count):
                    self.refused("counts.gguf", self.file("counts.gguf", bytes(damaged)))

    def replaced(self, old, new, count=1):
        self.assertEqual(len(old), len(new))
        self.assertIn(old, self.content)
        return self.file("changed.gguf", self.content.replace(old, new, count))

    def test_wrong_architecture(self):
        at = self.content.index(b"general.architecture")
        name_at = at + len(b"general.architecture") + 4 + 8
        damaged = bytearray(self.content)
        damaged[name_at:name_at + 4] = b"abcd"
        self.refused("abcd", self.file("architecture.gguf", bytes(damaged)))

    def test_missing_tensor(self):
        self.refused("blk.0.attn_norm",
                     self.replaced(b"blk.0.attn_norm.weight", b"blk.0.attn_nope.weight"))

    def tensor_record(self, name):
        """Offset of the record behind a tensor's name: u32 dimensions, u64 each, u32 type."""
        key = struct.pack("<Q", len(name)) + name
        at = self.content.index(key) + len(key)
        return at, struct.unpack_from("<I", self.content, at)[0]

    def test_wrong_shape(self):
        at, dimensions = self.tensor_record(b"blk.0.attn_norm.weight")
        damaged = bytearray(self.content)
        self.assertEqual(dimensions, 1)
        width = struct.unpack_from("<Q", damaged, at + 4)[0]
        struct.pack_into("<Q", damaged, at + 4, width // 2)
        result = self.refused("blk.0.attn_norm", self.file("shape.gguf", bytes(damaged)))
        self.assertIn(str(width), result.err)
        self.assertIn(str(width // 2), result.err)

    def test_unsupported_type(self):
        at, dimensions = self.tensor_record(b"blk.0.attn_norm.weight")
        damaged = bytearray(self.content)
        struct.pack_into("<I", damaged, at + 4 + 8 * dimensions, 99)
        result = self.refused("blk.0.attn_norm", self.file("type.gguf", bytes(damaged)))
        self.assertIn("99", result.err)


class Input(support.CliTest):
    def test_a_prompt_beyond_the_context(self):
        result = self.fails(1, "context", "-p", "a" * 200, "-c", 64)
        self.assertIn("64", result.err)
        self.fails(1, "context", "-p", "a" * 200, "-c", 64, "--dump-logits", "/dev/null")

    def test_a_context_that_the_model_or_memory_does_not_have(self):
        self.fails(1, "65536", "-p", "a", "-c", 1 << 20)

    def test_missing_and_unreadable_files(self):
        self.fails(1, "none.txt", "--prompt-file", "none.txt")
        self.fails(1, "directory", "--prompt-file", self.folder)
        self.fails(1, "none.txt", "--perplexity-file", "none.txt")
        self.fails(1, "none.txt", "-p", "a", "--prefix-file", "none.txt")
        self.fails(1, "none.f32", "-p", "a", "--dir-steering-file", "none.f32")
        self.fails(1, "none.gguf", "-p", "a", "--mtp", "none.gguf")
        self.fails(1, "empty", "--prompt-file", self.file("empty.txt", ""), "--raw")

    def test_files_with_the_wrong_content(self):
        result = self.fails(1, "expected", "-p", "a", "--dir-steering-file",
                            self.file("short.f32", b"\0" * 8))
        self.assertIn("8 bytes", result.err)
        prefix = self.file("prefix.txt", "USER: a\nUSER: b\n")
        self.assertIn("line 2", self.fails(1, "prefix.txt", "-p", "a", "--prefix-file", prefix).err)
        self.fails(1, "scoring", "--perplexity-file", self.file("short.txt", "a"))

    def test_a_backend_that_is_not_there(self):
        self.fails(1, "cpu", "-p", "a", "--backend", "abacus")

    def test_cuda_without_it_or_without_a_card(self):
        result = self.ds4("-p", "a", "-n", 1, "--backend", "cuda")
        if result.code != 0:  # this machine has no card
            self.assertEqual((result.code, result.text), (1, ""), result.err)
            self.assertIn("backend 'cuda'", result.err)

    def test_a_full_disk(self):
        for flag in ("--dump-logprobs", "--dump-logits"):
            self.fails(1, "/dev/full", flag, "/dev/full", "-p", "a", "-n", 2)

    def test_a_dump_that_cannot_be_written_leaves_nothing(self):
        self.fails(1, "directory", "--dump-logits", self.folder, "-p", "a")
        self.fails(1, "none", "--dump-logits", self.folder / "none" / "x.json", "-p", "a")
        names = {path.name for path in self.folder.iterdir()} - {"lock"}
        self.assertEqual(names, set())


if __name__ == "__main__":
    support.main()
