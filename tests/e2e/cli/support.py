"""Runs the ds4 binary as a user does: arguments in, text and exit code out."""
import os
import pathlib
import subprocess
import tempfile
import unittest

BINARY = os.environ["DS4_BINARY"]
GGUF_BINARY = os.environ["DS4_GGUF_BINARY"]
MODEL = os.environ["DS4_TEST_MODEL"]
TIMEOUT_S = 120


class Result:
    def __init__(self, completed):
        self.code = completed.returncode
        self.out = completed.stdout
        self.err = completed.stderr.decode("utf-8", "replace")

    @property
    def text(self):
        return self.out.decode("utf-8", "replace")


class CliTest(unittest.TestCase):
    """A private folder, a lock file and a home of its own for every test."""

    def setUp(self):
        holder = tempfile.TemporaryDirectory()
        self.addCleanup(holder.cleanup)
        self.folder = pathlib.Path(holder.name)
        self.environment = {
            "PATH": os.environ.get("PATH", ""),
            "HOME": str(self.folder),
            "XDG_STATE_HOME": str(self.folder / "state"),
            "DS4_LOCK_FILE": str(self.folder / "lock"),
            "LC_ALL": "C.UTF-8",
            "TERM": "xterm",
        }
        for name in ("ASAN_OPTIONS", "UBSAN_OPTIONS", "LSAN_OPTIONS", "TSAN_OPTIONS"):
            if name in os.environ:
                self.environment[name] = os.environ[name]

    def ds4(self, *arguments, stdin=b"", model=MODEL, stdout=subprocess.PIPE):
        command = [BINARY] + (["-m", str(model)] if model else []) + [str(a) for a in arguments]
        completed = subprocess.run(command, input=stdin, stdout=stdout, stderr=subprocess.PIPE,
                                   timeout=TIMEOUT_S, env=self.environment, cwd=self.folder)
        if completed.stdout is None:
            completed.stdout = b""
        return Result(completed)

    def succeeds(self, *arguments, **named):
        result = self.ds4(*arguments, **named)
        self.assertEqual(result.code, 0, result.err)
        return result

    def fails(self, code, message, *arguments, **named):
        """The run ends with `code`, says `message` in one place and prints nothing."""
        result = self.ds4(*arguments, **named)
        self.assertEqual(result.code, code, result.err)
        self.assertIn(message, result.err)
        self.assertEqual(result.out, b"")
        self.assertNotIn("internal error", result.err)
        return result

    def file(self, name, content):
        path = self.folder / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path


main = unittest.main
