"""Judges what a model wrote in one turn: its form (end, reasoning, calls) and whether it is right."""
import json
import re

import bpe

_PARAMETER = re.compile(f'<{bpe.DSML}parameter name="([^"]+)" string="(true|false)">(.*?)</{bpe.DSML}parameter>', re.S)
_CALL = re.compile(f'<{bpe.DSML}invoke name="([^"]+)">\n(.*?)\n</{bpe.DSML}invoke>', re.S)
_OPENING = f"\n\n<{bpe.DSML}tool_calls>"
_LEAKS = [t for t in bpe.LEADING_TOKENS + bpe.TRAILING_TOKENS if t not in (bpe.THINK, bpe.END_THINK, bpe.DSML)]


def _arguments(body, schema):
    """The arguments of one call, or None where they do not fit the tool's schema."""
    if _PARAMETER.sub("", body).strip("\n"):
        return None
    known, out = schema["properties"], {}
    for key, is_string, value in _PARAMETER.findall(body):
        if key not in known or key in out or (known[key]["type"] == "string") != (is_string == "true"):
            return None
        if is_string == "false":
            try:
                value = json.loads(value)
            except ValueError:
                return None
        out[key] = value
    return out if all(k in out for k in schema.get("required", [])) else None


def parse_calls(block, tools):
    """[(name, arguments)] of a whole block of calls, or None where it is not well-formed or does not fit `tools`."""
    match = re.fullmatch(f"<{bpe.DSML}tool_calls>\n(.*)\n</{bpe.DSML}tool_calls>", block, re.S)
    if match is None or _CALL.sub("", match[1]).strip("\n"):
        return None
    schemas = {t["function"]["name"]: t["function"]["parameters"] for t in tools or []}
    out = []
    for name, body in _CALL.findall(match[1]):
        arguments = _arguments(body, schemas[name]) if name in schemas else None
        if arguments is None:
            return None
        out.append((name, arguments))
    return out or None


class Verdict:
    """One turn: `clean` (ends, no stray control token), `reasoning` (as the mode asks), `valid` (its calls, None where it
    made none and none was wanted), `right`."""

    def __init__(self, text, turn, thinking):
        expect = turn["expect"]
        ended, body = text.endswith(bpe.EOS), text.removesuffix(bpe.EOS)
        head, mark, answer = body.rpartition(bpe.END_THINK)
        self.reasoning = (mark != "" and head.strip() != "" and bpe.END_THINK not in head) if thinking else mark == ""
        self.reasoning = self.reasoning and bpe.THINK not in body
        content, opened, block = answer.partition(_OPENING)
        self.clean = ended and not any(t in body for t in _LEAKS) and (opened != "" or bpe.DSML not in content)
        calls = parse_calls((opened + block).strip("\n"), turn["tools"]) if opened else None
        wanted = [(c["name"], c["arguments"]) for c in expect["calls"]]
        self.valid = None if not opened and not wanted else ended and calls is not None
        if expect.get("answer") is not None:
            said = re.findall(r"-?\d+", content)
            self.right = ended and bool(said) and said[-1] == expect["answer"]
        else:
            self.right = ended and (calls or []) == wanted and (bool(wanted) or content.strip() == expect["content"].strip())
            self.right = self.right and self.valid is not False
