"""ds4-bench as a user runs it: a table, a picture, a comparison, and one message for bad input."""
import csv
import unittest

import support


class BenchTest(support.CliTest):
    def bench(self, *arguments):
        return self.ds4(*arguments, model=None)

    def measure(self, name, *arguments):
        table = self.folder / name
        result = self.bench("-m", support.MODEL, "--backend", "cpu", "-t", 1, "--csv", table,
                            *arguments)
        self.assertEqual(result.code, 0, result.err)
        self.assertEqual(result.text, table.read_text())
        return list(csv.DictReader(result.text.splitlines()))

    def test_table_and_plot(self):
        plot = self.folder / "plot.svg"
        rows = self.measure("a.csv", "--frontiers", "8,40", "-n", 4, "--batch", "1,3", "--runs", 2,
                            "--plot", plot)
        self.assertEqual([(r["ctx_tokens"], r["batch"]) for r in rows],
                         [("8", "1"), ("40", "1"), ("8", "3"), ("40", "3")])
        self.assertEqual([r["prefill_tokens"] for r in rows], ["8", "32", "8", "32"])
        for row in rows:
            for column in ("prefill_tps", "gen_tps", "gen_first_ms", "gen_steady_tps",
                           "kvcache_bytes", "gen_bytes", "gen_roof_share", "load_s", "copy_gbps"):
                self.assertGreater(float(row[column]), 0, column)
            self.assertEqual(row["gen_runs"], "2")
        svg = plot.read_text()
        self.assertTrue(svg.startswith("<svg ") and svg.endswith("</svg>\n"))
        self.assertEqual(svg.count("<circle"), 8)

    def test_prompt_alone_and_compare(self):
        self.measure("a.csv", "--frontiers", 16, "-n", 0, "--runs", 1)
        self.measure("b.csv", "--frontiers", 16, "-n", 2, "--runs", 1)
        result = self.bench("--compare", "a.csv", "b.csv")
        self.assertEqual(result.code, 0, result.err)
        self.assertIn("geometric mean of B / A: prefill", result.text)

    def test_a_chat_prompt(self):
        text = self.folder / "prompt.txt"
        text.write_text("What is a river? " * 20)
        rows = self.measure("a.csv", "--frontiers", 16, "-n", 2, "--runs", 1, "--power", 90,
                            "--quality", "--chat-prompt-file", text, "-sys", "Be brief.")
        self.assertEqual(rows[0]["ctx_tokens"], "16")

    def test_bad_input(self):
        for arguments, code, message in (
                (("-m", support.MODEL, "--backend", "cpu", "--frontiers", 8, "-n", 1, "--chunk", 16,
                  "--batch", 17), 2, "--batch 17"),
                (("-m", support.MODEL, "--ctx-start", 9, "--ctx-max", 8), 2, "--ctx-start"),
                (("-m", "missing.gguf", "--frontiers", 8), 1, "missing.gguf"),
                (("-m", support.MODEL, "--backend", "abacus", "--frontiers", 8), 1, "abacus"),
                (("-m", support.MODEL, "--frontiers", 8, "--csv", "no/such/folder.csv"), 1,
                 "no/such")):
            result = self.bench(*arguments)
            self.assertEqual(result.code, code, result.err)
            self.assertIn(message, result.err)


if __name__ == "__main__":
    unittest.main()
