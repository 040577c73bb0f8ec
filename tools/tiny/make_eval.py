"""Held-out cases of every ability, for scoring through an engine (standard library only); measure.py writes them out.

A case is a dict: `ability`, `id`, `thinking`, and `turns`. Every turn has `messages` and `tools` (an OpenAI-style
request whose history is the scripted conversation so far), `prompt` (the same rendered, up to the model's turn), and
`expect`: `text` (the whole expected continuation, end-of-turn token included), `reasoning`, `content`, `calls`
([{name, arguments}]), and `answer` where only that string matters. A case is passed when all its turns are.
"""
import random

import bpe
import chat
import packs

ABILITIES = ["chat", "arithmetic", "recall_1500", "recall_6000", "tool_call", "tool_result", "agent"]


def _request(messages):
    """The request form of a prefix: system text, then the turns, without training-only keys."""
    out = []
    for message in messages:
        kept = {k: v for k, v in message.items() if k != "tools"}
        if not (message["role"] == "system" and not kept.get("content")):
            out.append(kept)
    return out


def turns_of(case, scored_from_end):
    """The model turns to score: all of them, or the last one only."""
    tools = next((m["tools"] for m in case.messages if m.get("tools")), None)
    indices = [i for i, m in enumerate(case.messages) if m["role"] == "assistant"]
    turns = []
    for index in indices[-1:] if scored_from_end else indices:
        message, prefix = case.messages[index], case.messages[:index]
        options = {"max_effort": case.extra.get("max_effort", False)}
        prompt = chat.render_text(prefix, case.thinking, **options)
        if case.thinking and "reasoning_content" not in message:
            continue
        reasoning = message.get("reasoning_content", "") if case.thinking else None
        text = (reasoning + bpe.END_THINK if case.thinking else "") + message["content"]
        calls = [(c["function"]["name"], c["function"]["arguments"]) for c in message.get("tool_calls", [])]
        if calls:
            text += "\n\n" + chat.render_calls(calls)
        turns.append({"messages": _request(prefix), "tools": tools, "prompt": prompt,
                      "expect": {"text": text + bpe.EOS, "reasoning": reasoning, "content": message["content"],
                                 "calls": [{"name": n, "arguments": a} for n, a in calls],
                                 "answer": case.extra.get("answer")}})
    return turns


def cases(tokenizer, ability, count, seed):
    """`count` cases of one ability; a function of the seed."""
    rng, maker = random.Random(f"held-out/{seed}/{ability}"), packs.scored_makers(tokenizer)[ability]
    for number in range(count):
        case = maker(rng)
        yield {"ability": ability, "id": f"{ability}-{number}", "thinking": case.thinking,
               "turns": turns_of(case, ability in ("arithmetic", "recall_1500", "recall_6000"))}
