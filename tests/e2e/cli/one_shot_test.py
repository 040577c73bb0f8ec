"""One answer: what goes to standard output, what to standard error, and the exit code."""
import re
import signal
import subprocess
import time

import support


class OneShot(support.CliTest):
    def test_standard_output_is_the_answer_alone(self):
        result = self.succeeds("-p", "hello", "-n", 8, "--seed", 1)
        self.assertTrue(result.out.endswith(b"\n"))
        self.assertNotIn(b"\x1b", result.out)
        self.assertNotIn(b"t/s", result.out)
        self.assertNotIn(b"think>", result.out)
        self.assertRegex(result.err, r"prefill: \d+ tokens, [\d.]+ t/s; generation: 8 tokens")
        self.assertIn("MiB allocated", result.err)
        self.assertNotIn("\x1b", result.err)

    def test_the_seed_repeats_the_answer(self):
        first = self.succeeds("-p", "hello", "-n", 12, "--seed", 5)
        again = self.succeeds("-p", "hello", "-n", 12, "--seed", 5)
        other = self.succeeds("-p", "hello", "-n", 12, "--seed", 6)
        self.assertEqual(first.out, again.out)
        self.assertNotEqual(first.out, other.out)

    def test_drafting_changes_nothing(self):
        plain = self.succeeds("-p", "hello", "-n", 16, "--temp", 0, "--mtp-draft", 0)
        for draft in (1, 4):
            drafted = self.succeeds("-p", "hello", "-n", 16, "--temp", 0, "--mtp-draft", draft)
            self.assertEqual(plain.out, drafted.out)
        for margin in (0, 1000):
            drafted = self.succeeds("-p", "hello", "-n", 16, "--temp", 0, "--mtp-draft", 4,
                                    "--mtp-margin", margin)
            self.assertEqual(plain.out, drafted.out)

    def test_a_slow_machine_gives_the_same_answer(self):
        full = self.succeeds("-p", "hello", "-n", 4, "--temp", 0)
        half = self.succeeds("-p", "hello", "-n", 4, "--temp", 0, "--power", 50)
        self.assertEqual(full.out, half.out)

    def test_chunks_and_threads_change_nothing(self):
        expected = self.succeeds("-p", "hello", "-n", 6, "--temp", 0)
        for flags in (["--prefill-chunk", 16], ["-t", 1], ["--warm-weights"], ["--cpu"],
                      ["--quality"]):
            self.assertEqual(expected.out,
                             self.succeeds("-p", "hello", "-n", 6, "--temp", 0, *flags).out)

    def test_prompt_from_a_file_and_from_standard_input(self):
        expected = self.succeeds("-p", "hello", "-n", 6, "--temp", 0)
        path = self.file("prompt.txt", "hello")
        self.assertEqual(expected.out,
                         self.succeeds("--prompt-file", path, "-n", 6, "--temp", 0).out)
        self.assertEqual(
            expected.out,
            self.succeeds("--prompt-file", "-", "-n", 6, "--temp", 0, stdin=b"hello").out)

    def test_the_budget_ends_with_the_context(self):
        prompt = re.search(r"prefill: (\d+)", self.succeeds("-p", "hello", "-n", 1).err)
        context = int(prompt[1]) + 4
        result = self.succeeds("-p", "hello", "-c", context, "--temp", 0, "--mtp-draft", 0)
        self.assertIn("generation: 3 tokens", result.err)  # context - prompt - 1
        self.assertIn("is full", result.err)

    def test_answer_only_leaves_the_reasoning_out(self):
        result = self.succeeds("-p", "hello", "-n", 8, "--seed", 1, "--answer-only")
        self.assertIn("inside the reasoning", result.err)
        self.assertNotEqual(result.out, self.succeeds("-p", "hello", "-n", 8, "--seed", 1).out)

    def test_a_lost_reader_is_an_error(self):
        with open("/dev/full", "wb") as full:
            result = self.ds4("-p", "hello", "-n", 4, stdout=full)
        self.assertEqual(result.code, 1)
        self.assertIn("standard output", result.err)

    def test_ctrl_c_ends_after_the_current_token(self):
        process = subprocess.Popen(
            [support.BINARY, "-m", support.MODEL, "-p", "hello", "--temp", "0", "--nothink"],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=self.environment)
        process.stdout.read(1)  # the answer has begun
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=support.TIMEOUT_S)
        self.assertEqual(process.returncode, 130, err)
        self.assertTrue(out.endswith(b"\n"))
        self.assertIn(b"generation:", err)


class Lock(support.CliTest):
    def test_a_second_instance_is_refused(self):
        process = subprocess.Popen([support.BINARY, "-m", support.MODEL], stdin=subprocess.PIPE,
                                   stderr=subprocess.PIPE, env=self.environment)
        while b"MiB allocated" not in process.stderr.readline():
            time.sleep(0.01)
        result = self.fails(2, "another instance", "-p", "hello", "-n", 1)
        self.assertIn(str(process.pid), result.err)
        self.succeeds("--plan")
        self.succeeds("--inspect")
        self.succeeds("--dump-tokens", "-p", "x")
        process.communicate(b"/quit\n", timeout=support.TIMEOUT_S)
        self.assertEqual(process.returncode, 0)
        self.succeeds("-p", "hello", "-n", 1)


if __name__ == "__main__":
    support.main()
