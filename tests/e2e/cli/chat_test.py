"""The chat: through a pipe, and through a terminal of its own."""
import os
import pty
import re
import select
import stat
import subprocess
import time

import support


class Piped(support.CliTest):
    def chat(self, *lines, flags=()):
        text = "".join(line + "\n" for line in lines)
        return self.succeeds("-n", 6, "--temp", 0, *flags, stdin=text.encode())

    def test_standard_output_is_the_answers_alone(self):
        result = self.chat("/status", "hello", "/help", "again")
        self.assertEqual(len(re.findall(r"generation: \d+", result.err)), 2)
        self.assertIn("/quit", result.err)
        self.assertNotIn(b"/quit", result.out)
        self.assertNotIn(b"ds4>", result.out)

    def test_the_first_turn_is_the_one_shot_answer(self):
        one_shot = self.succeeds("-n", 6, "--temp", 0, "-p", "hello")
        self.assertEqual(self.chat("hello").out, one_shot.out)

    def test_a_second_turn_reads_its_own_words_alone(self):
        result = self.chat("hello", "again", flags=["--nothink"])
        first, second = (int(x) for x in re.findall(r"prefill: (\d+) tokens", result.err))
        # The last token of the answer, its end, and the turn: <User> again <Assistant> </think>.
        self.assertLessEqual(second, len("again") + 5)
        self.assertLess(second, first)

    def test_think_max_reads_everything_again(self):
        # Too small a context for the mode: it stays what it was, and says so.
        self.assertIn("393216", self.chat("/think-max").err)

    def test_unknown_commands_and_wrong_arguments_submit_nothing(self):
        result = self.chat("/bogus", "/ctx", "/ctx many", "/power 0", "/steer 1", "/help me",
                           "/read", "/read none.txt", "/load none", "/save ../x", "", "   ")
        self.assertEqual(result.out, b"")
        for message in ("unknown command /bogus", "usage: /ctx N", "'many'", "steering",
                        "takes no argument", "none.txt", "no kept conversation 'none'", "is no name"):
            self.assertIn(message, result.err)

    def test_read_asks_with_a_file(self):
        self.file("question.txt", "hello")
        self.assertEqual(self.chat("/read question.txt").out, self.chat("hello").out)

    def test_a_larger_context_keeps_the_conversation(self):
        plain = self.chat("hello", "again")
        moved = self.chat("hello", "/ctx 4096", "again")
        self.assertEqual(plain.out, moved.out)
        self.assertIn("4096", moved.err)

    def test_a_context_that_is_too_small_is_refused_and_changes_nothing(self):
        plain = self.chat("hello", "again")
        refused = self.chat("hello", "/ctx 8", "again")
        self.assertIn("has", refused.err)
        self.assertEqual(plain.out, refused.out)

    def test_a_turn_beyond_the_context_is_rolled_back(self):
        plain = self.chat("hello", "again", flags=["-c", 256])
        failed = self.chat("hello", "x" * 400, "again", flags=["-c", 256])
        self.assertIn("do not fit", failed.err)
        self.assertEqual(plain.out, failed.out)

    def test_a_saved_conversation_goes_on_exactly(self):
        plain = self.chat("hello", "again")
        saved = self.chat("hello", "/save a-b.1", "/list")
        self.assertIn("a-b.1", saved.err)
        self.assert_private(self.folder / "state" / "ds4" / "kv")
        loaded = self.chat("/load a-b.1", "again")
        self.assertEqual(saved.out + loaded.out, plain.out)
        # Nothing was read twice.
        self.assertEqual(re.findall(r"prefill: (\d+)", loaded.err),
                         re.findall(r"prefill: (\d+)", plain.err)[1:])

    def assert_private(self, folder):
        for path in [folder, *folder.rglob("*")]:
            self.assertEqual(stat.S_IMODE(path.stat().st_mode), 0o700 if path.is_dir() else 0o600,
                             path)

    def kept(self, kind):
        return sorted((self.folder / "state" / "ds4" / "kv" / kind).iterdir())

    def test_a_damaged_saved_conversation_is_refused_and_changes_nothing(self):
        self.chat("hello", "/save x")
        path, = self.kept("sessions")
        whole = path.read_bytes()
        plain = self.chat("hi", "again")
        for damaged in (b"", whole[:20], whole[:-1], whole[:40] + b"!" + whole[41:],
                        whole[:-20] + b"!" + whole[-19:]):
            path.write_bytes(damaged)
            result = self.chat("hi", "/load x", "again")
            self.assertEqual(result.out, plain.out)

    def test_a_conversation_whose_state_is_damaged_is_read_again(self):
        plain = self.chat("hello", "again")
        first = self.chat("hello", "/save x")
        for kind in ("chunks", "tails"):
            for path in self.kept(kind):
                path.write_bytes(path.read_bytes()[:-1])
        loaded = self.chat("/load x", "again")
        self.assertIn("read again", loaded.err)
        self.assertEqual(first.out + loaded.out, plain.out)

    def test_a_stripped_conversation_is_read_again_and_goes_on_the_same(self):
        plain = self.chat("hello", "again")
        first = self.chat("hello", "/save x", "/strip x", "/list")
        self.assertIn("words alone", first.err)
        self.assertEqual(self.kept("tails"), [])
        self.assertEqual(first.out + self.chat("/load x", "again").out, plain.out)

    def test_switching_keeps_what_has_a_name(self):
        plain = self.chat("hello", "again", "more")
        self.chat("other", "/save b")
        switched = self.chat("hello", "/save a", "again", "/switch b", "/switch a", "more")
        self.assertEqual(switched.out, plain.out)
        missing = self.chat("hello", "/switch none", "again", "more")
        self.assertIn("none", missing.err)
        self.assertEqual(missing.out, plain.out)

    def test_del_removes(self):
        result = self.chat("hello", "/save x", "/del x", "/list", "/del x")
        self.assertIn("no kept conversations", result.err)
        self.assertIn("no kept conversation 'x'", result.err)

    def test_a_backslash_continues_the_line(self):
        result = self.chat("hel\\", "lo", "/status")
        self.assertEqual(len(re.findall(r"generation: ", result.err)), 1)

    def test_quit_leaves(self):
        self.assertEqual(self.chat("/quit", "hello").out, b"")
        self.assertEqual(self.chat("/exit", "hello").out, b"")


class Typed(support.CliTest):
    """A terminal on both sides."""

    def start(self, *flags):
        master, slave = pty.openpty()
        command = [support.BINARY, "-m", support.MODEL, "--temp", "0", "--min-p", "0", *flags]
        process = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave,
                                   env=self.environment, start_new_session=True,
                                   preexec_fn=lambda: self.own_terminal())
        os.close(slave)
        self.addCleanup(os.close, master)
        self.addCleanup(lambda: process.poll() is None and process.kill())
        self.master, self.process, self.seen = master, process, b""
        return process

    @staticmethod
    def own_terminal():
        import fcntl
        import termios
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    def expect(self, pattern):
        """Reads until the pattern stands in what has come since the last match."""
        deadline = time.monotonic() + support.TIMEOUT_S
        while True:
            match = re.search(pattern, self.seen)
            if match:
                self.seen = self.seen[match.end():]
                return match
            self.assertLess(time.monotonic(), deadline, f"{pattern} not in {self.seen!r}")
            if select.select([self.master], [], [], 0.2)[0]:
                try:
                    self.seen += os.read(self.master, 65536)
                except OSError:  # the other side is gone
                    self.fail(f"{pattern} not in {self.seen!r}")

    def type(self, text):
        # The prompt shows a moment before the line editor takes the terminal over, which drops keys.
        time.sleep(0.3)
        os.write(self.master, text)

    def leave(self):
        self.expect(rb"ds4> ")  # before that the key would belong to nobody
        deadline = time.monotonic() + support.TIMEOUT_S
        while time.monotonic() < deadline:
            self.type(b"\x04")
            try:
                self.assertEqual(self.process.wait(2), 0)
                return
            except subprocess.TimeoutExpired:
                continue  # that key was dropped
        self.fail("the end of input does not end the chat")

    def test_reasoning_is_dim_and_history_is_kept(self):
        self.start("-n", "5")
        self.expect(rb"ds4> ")
        self.type(b"hello\r")
        self.expect(rb"\x1b\[90m")
        self.expect(rb"generation: 5 tokens")
        self.leave()
        history = self.folder / ".ds4_history"
        self.assertIn("hello", history.read_text())
        self.assertEqual(stat.S_IMODE(history.stat().st_mode) & 0o077, 0)

    def test_no_colour_is_honoured(self):
        self.environment["NO_COLOR"] = "1"
        self.start("-n", "5")
        self.expect(rb"ds4> ")
        self.type(b"hello\r")
        before = self.expect(rb"(?s)(.*)generation: 5 tokens")[1]
        self.assertNotRegex(before, rb"\x1b\[(90|3\d)m")
        self.leave()

    def test_ctrl_c_stops_an_answer_and_keeps_the_chat(self):
        self.start("--nothink")
        self.expect(rb"ds4> ")
        self.type(b"hello\r")
        self.expect(rb"(?s)\r\x1b\[K.")  # progress is gone, the first byte is there
        self.type(b"\x03")
        self.expect(rb"stopped; what was said is kept")
        self.expect(rb"ds4> ")
        self.type(b"/status\r")
        self.expect(rb"1 turns")
        self.leave()

    def test_ctrl_c_at_the_prompt_drops_the_line(self):
        self.start("-n", "3")
        self.expect(rb"ds4> ")
        self.type(b"some words\x03")
        self.expect(rb"ds4> ")
        self.type(b"/status\r")
        self.expect(rb"0 turns")
        self.leave()

    def test_a_paste_is_one_question(self):
        self.start("-n", "3")
        self.expect(rb"ds4> ")
        self.type(b"\x1b[200~one\rtwo\rthree\x1b[201~\r")
        self.expect(rb"generation: 3 tokens")
        self.expect(rb"ds4> ")
        self.type(b"/status\r")
        self.expect(rb"1 turns")
        self.leave()


if __name__ == "__main__":
    support.main()
