"""Cases -> token rows for training: encoding with loss weights, the mixture of kinds, and packing.

A row holds several dialogues, each starting at a multiple of 128 so that compressor windows never straddle two of
them; `blocks` names the dialogue of every 128-token block. Everything is a function of (seed, step).
"""
import os
import random
import re
from dataclasses import dataclass

import bpe
import chat
import talk
import toolwork

BLOCK = 128
HERE = os.path.dirname(os.path.abspath(__file__))
TOKENIZER_PATH = os.path.join(HERE, "tokenizer.json")
CONTEXT_WEIGHT = 0.04
DIRECT_SUM_WEIGHT = 0.3


@dataclass(frozen=True)
class Recipe:
    """What a training is fed: shares of tokens per kind in short rows (early, late in the course) and in long ones, the
    weight of tokens that are not the model's own, and the factor on tool and parameter names in the model's own turns."""
    early: dict
    late: dict
    long_rows: dict
    context_weight: float = CONTEXT_WEIGHT
    name_weight: float = 1.0

    def shares(self, progress, long_rows):
        """Token shares of the kinds at `progress` in 0..1."""
        if long_rows:
            return self.long_rows
        blend = min(1.0, progress / 0.35)
        return {k: self.early.get(k, 0.0) * (1 - blend) + share * blend for k, share in self.late.items()}


_EARLY = {"arithmetic": 0.10, "arithmetic_direct": 0.02, "chat": 0.06, "copy": 0.14, "recall_short": 0.24, "recall_mid": 0.10,
          "tool_call": 0.16, "tool_result": 0.08, "agent": 0.10}
_LATE = {"arithmetic": 0.08, "arithmetic_direct": 0.02, "chat": 0.06, "copy": 0.06, "recall_short": 0.05, "recall_mid": 0.18,
         "tool_call": 0.26, "tool_result": 0.13, "agent": 0.16}
_LONG = {"recall_long": 0.66, "recall_mid": 0.06, "agent": 0.08, "tool_call": 0.10, "tool_result": 0.05, "arithmetic": 0.03,
         "chat": 0.02}
# half and a third of the tokens are requests to tools, a good part of them to tools that resemble one another
_HALF = {"arithmetic": 0.05, "arithmetic_direct": 0.01, "chat": 0.05, "copy": 0.04, "recall_short": 0.03, "recall_mid": 0.08,
         "tool_call": 0.22, "tool_look_alike": 0.28, "tool_result": 0.11, "agent": 0.13}
_THIRD = {"arithmetic": 0.06, "arithmetic_direct": 0.01, "chat": 0.06, "copy": 0.05, "recall_short": 0.04, "recall_mid": 0.14,
          "tool_call": 0.16, "tool_look_alike": 0.18, "tool_result": 0.13, "agent": 0.17}
_LONG_TOOLS = {"recall_long": 0.58, "recall_mid": 0.06, "agent": 0.08, "tool_call": 0.06, "tool_look_alike": 0.12,
               "tool_result": 0.05, "arithmetic": 0.03, "chat": 0.02}
RECIPES = {
    "even": Recipe(_EARLY, _LATE, _LONG),
    "tools": Recipe(_HALF, _HALF, _LONG_TOOLS, context_weight=0.01),
    "tools-third": Recipe(_THIRD, _THIRD, _LONG_TOOLS),
    "names": Recipe(_HALF, _HALF, _LONG_TOOLS, context_weight=0.002, name_weight=3.0),
}
MAKERS = {
    "arithmetic": talk.make_arithmetic, "arithmetic_direct": talk.make_arithmetic_direct, "chat": talk.make_chat,
    "copy": talk.make_copy, "recall_short": talk.make_recall_short, "recall_mid": talk.make_recall_mid,
    "recall_long": talk.make_recall_long, "tool_call": toolwork.make_tool_call, "tool_result": toolwork.make_tool_result,
    "agent": toolwork.make_agent,
    "tool_look_alike": toolwork.make_look_alike,
}
# rough tokens per case, to turn shares of tokens into shares of cases
TYPICAL = {"arithmetic": 110, "arithmetic_direct": 60, "chat": 90, "copy": 420, "recall_short": 480, "recall_mid": 1500,
           "recall_long": 4600, "tool_call": 800, "tool_result": 600, "agent": 1100, "tool_look_alike": 800}


# names of tools and parameters in the model's own turns, and whether a parameter is a string
_NAMES = re.compile(r'(?:invoke|parameter) name="([^"]+(?:" string="(?:true|false))?)|\bI call (\w+)|(?: with|,) (\w+) = ')


def name_tokens(tokenizer, text, ids):
    """Positions in `ids` (of `text`) of the tokens that write names, the token that ends a name included."""
    marks = [(m.start(g), m.end(g) + 1) for m in _NAMES.finditer(text) for g in (1, 2, 3) if m.group(g)]
    out, at, mark = [], 0, 0
    for position, token in enumerate(ids):
        end = at + len(tokenizer.decode([token]))
        while mark < len(marks) and marks[mark][1] <= at:
            mark += 1
        if mark < len(marks) and end > marks[mark][0]:
            out.append(position)
        at = end
    return out if at == len(text) else []  # broken characters: no position is sure


def encode_case(tokenizer, case, recipe=RECIPES["even"]):
    """(ids, weights): weights say how much each token counts when it is the one to predict."""
    ids, weights = [], []
    direct = case.kind == "arithmetic_direct"
    segments = chat.render(case.messages, case.thinking, max_effort=case.extra.get("max_effort", False))
    last_output = max(i for i, (_, own) in enumerate(segments) if own)
    for index, (text, own) in enumerate(segments):
        part = tokenizer.encode(text)
        weight = recipe.context_weight
        if own:
            weak = direct or (case.kind == "arithmetic" and index != last_output)
            weight = DIRECT_SUM_WEIGHT if weak else 1.0
        counts = [weight] * len(part)
        if own and recipe.name_weight != 1.0 and bpe.DSML in text:
            for position in name_tokens(tokenizer, text, part):
                counts[position] *= recipe.name_weight
        ids += part
        weights += counts
    return ids, weights


def _draw(rng, shares):
    kinds = list(shares)
    return rng.choices(kinds, [shares[k] / TYPICAL[k] for k in kinds])[0]


class Packer:
    """Fills rows of `length` tokens; keeps encoded cases that did not fit for the next row of the same batch."""

    def __init__(self, tokenizer, seed, length, shares, recipe):
        self.tokenizer, self.rng, self.length, self.shares, self.recipe = tokenizer, random.Random(seed), length, shares, recipe
        self.waiting = []

    def _next_case(self, room):
        for index, case in enumerate(self.waiting):
            if len(case[0]) <= room:
                return self.waiting.pop(index)
        for _ in range(6):
            case = encode_case(self.tokenizer, MAKERS[_draw(self.rng, self.shares)](self.rng), self.recipe)
            if len(case[0]) <= room:
                return case
            if len(case[0]) <= self.length and len(self.waiting) < 8:
                self.waiting.append(case)
        return None

    def row(self):
        """(ids, weights, blocks) of one row; padding is id 2 with weight 0 and block label 0."""
        ids, weights, blocks, label = [], [], [], 0
        while self.length - len(ids) >= BLOCK:
            case = self._next_case(self.length - len(ids))
            if case is None:
                break
            label += 1
            fill = -len(case[0]) % BLOCK
            # the first token of a dialogue is never a target
            ids += case[0] + [2] * fill
            weights += [0.0] + case[1][1:] + [0.0] * fill
            blocks += [label] * ((len(case[0]) + fill) // BLOCK)
        missing = self.length - len(ids)
        return ids + [2] * missing, weights + [0.0] * missing, blocks + [0] * (missing // BLOCK)


def batch(tokenizer, seed, step, rows, length, progress, long_rows=False, mixture="even"):
    """`rows` packed rows of step `step`."""
    recipe = RECIPES[mixture]
    packer = Packer(tokenizer, f"{seed}/{step}/{length}", length, recipe.shares(progress, long_rows), recipe)
    return [packer.row() for _ in range(rows)]


def scored_makers(tokenizer):
    """Ability -> maker of held-out cases."""
    def count(text):
        return len(tokenizer.encode(text))
    return {
        "chat": lambda r: talk.make_chat(r, scored=True),
        "arithmetic": lambda r: talk.make_arithmetic(r, scored=True),
        "recall_1500": lambda r: talk.make_recall_scored(r, 1500, count),
        "recall_6000": lambda r: talk.make_recall_scored(r, 6000, count),
        "copy": lambda r: talk.make_copy(r, 12),
        "tool_call": lambda r: toolwork.make_tool_call(r, scored=True),
        "tool_result": lambda r: toolwork.make_tool_result(r, scored=True),
        "agent": lambda r: toolwork.make_agent(r, scored=True),
    }


def load_tokenizer():
    return bpe.Tokenizer.load(TOKENIZER_PATH)
