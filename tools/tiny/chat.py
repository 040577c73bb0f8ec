"""The official chat encoding: messages -> rendered text, with the model's own spans marked for training.

A message is a dict with `role` in {system, developer, user, tool, assistant, latest_reminder} and the published
keys (content, tools, reasoning_content, tool_calls, tool_call_id, task, ...). Pure functions, no state.
"""
import json

from bpe import ASSISTANT, BOS, DSML, END_THINK, EOS, REMINDER, THINK, USER

TASK_TOKENS = {name: f"<｜{name}｜>" for name in ("action", "query", "authority", "domain", "title", "read_url")}
MAX_EFFORT = (
    "Reasoning Effort: Absolute maximum with no shortcuts permitted.\nYou MUST be very thorough in your thinking and "
    "comprehensively decompose the problem to resolve the root cause, rigorously stress-testing your logic against all "
    "potential paths, edge cases, and adversarial scenarios.\nExplicitly write out your entire deliberation process, "
    "documenting every intermediate step, considered alternative, and rejected hypothesis to ensure absolutely no "
    "assumption is left unchecked.\n\n")
TOOLS_BLOCK = """## Tools

You have access to a set of tools to help answer the user's question. You can invoke tools by writing a "<{d}tool_calls>" block like the following:

<{d}tool_calls>
<{d}invoke name="$TOOL_NAME">
<{d}parameter name="$PARAMETER_NAME" string="true|false">$PARAMETER_VALUE</{d}parameter>
...
</{d}invoke>
<{d}invoke name="$TOOL_NAME2">
...
</{d}invoke>
</{d}tool_calls>

String parameters should be specified as is and set `string="true"`. For all other types (numbers, booleans, arrays, objects), pass the value in JSON format and set `string="false"`.

If thinking_mode is enabled (triggered by <think>), you MUST output your complete reasoning inside <think>...</think> BEFORE any tool calls or final response.

Otherwise, output directly after </think> with tool calls or final response.

### Available Tool Schemas

{schemas}

You MUST strictly follow the above defined tool name and parameter schemas to invoke tool calls.
"""
RESPONSE_FORMAT = ("## Response Format:\n\nYou MUST strictly adhere to the following schema to reply:\n{schema}")


def to_json(value):
    return json.dumps(value, ensure_ascii=False)


def render_tools(tools):
    schemas = "\n".join(to_json(tool["function"]) for tool in tools)
    return TOOLS_BLOCK.replace("{d}", DSML).replace("{schemas}", schemas)


def render_call(name, arguments):
    """One invocation; `arguments` is a dict."""
    lines = [f'<{DSML}invoke name="{name}">']
    params = []
    for key, value in arguments.items():
        is_string = isinstance(value, str)
        shown = value if is_string else to_json(value)
        params.append(f'<{DSML}parameter name="{key}" string="{"true" if is_string else "false"}">{shown}</{DSML}parameter>')
    lines.append("\n".join(params))
    lines.append(f"</{DSML}invoke>")
    return "\n".join(lines)


def render_calls(calls):
    """The calls block of an assistant turn; `calls` holds (name, arguments) pairs."""
    body = "\n".join(render_call(name, arguments) for name, arguments in calls)
    return f"<{DSML}tool_calls>\n{body}\n</{DSML}tool_calls>"


def _call_pairs(message):
    pairs = []
    for call in message.get("tool_calls") or []:
        arguments = call["function"]["arguments"]
        if isinstance(arguments, str):
            try:
                arguments = json.loads(arguments)
            except ValueError:
                arguments = {"arguments": arguments}
        pairs.append((call["function"]["name"], arguments))
    return pairs


def _tool_text(content):
    if isinstance(content, list):
        content = "\n\n".join(p["text"] if p.get("type") == "text" else f"[Unsupported {p.get('type')}]" for p in content)
    return f"<tool_result>{content or ''}</tool_result>"


def _merge(messages):
    """Turns tool messages into user blocks and joins neighbouring user turns, results in the order of the calls."""
    merged, order = [], {}
    for message in messages:
        role = message["role"]
        if role == "assistant":
            order = {c["id"]: i for i, c in enumerate(message.get("tool_calls") or []) if c.get("id")}
        if role not in ("tool", "user"):
            merged.append(dict(message))
            continue
        rank = order.get(message.get("tool_call_id"), 0) if role == "tool" else None
        block = (rank, _tool_text(message.get("content")) if role == "tool" else message.get("content") or "")
        last = merged[-1] if merged else None
        if last is not None and last["role"] == "user" and not last.get("task"):
            last["blocks"].append(block)
        else:
            merged.append({"role": "user", "blocks": [block]})
        if message.get("task"):
            merged[-1]["task"] = message["task"]
    for message in merged:
        if message["role"] == "user":
            results = sorted((b for b in message["blocks"] if b[0] is not None), key=lambda b: b[0])
            ordered = [results.pop(0) if b[0] is not None else b for b in message["blocks"]]
            message["content"] = "\n\n".join(text for _, text in ordered)
    return merged


def _drop_reasoning(messages):
    last_user = max((i for i, m in enumerate(messages) if m["role"] in ("user", "developer")), default=-1)
    kept = []
    for index, message in enumerate(messages):
        if index < last_user and message["role"] == "developer":
            continue
        if index < last_user and message["role"] == "assistant":
            message = {k: v for k, v in message.items() if k != "reasoning_content"}
        kept.append(message)
    return kept


def _render_system(message):
    text = message.get("content") or ""
    if message.get("tools"):
        text += "\n\n" + render_tools(message["tools"])
    if message.get("response_format"):
        text += "\n\n" + RESPONSE_FORMAT.format(schema=to_json(message["response_format"]))
    return text


def render(messages, thinking, max_effort=False, drop_thinking=True):
    """Segments (text, is_model_output) of a conversation; an unfinished one ends with the generation prompt."""
    messages = _merge(messages)
    if any(m.get("tools") for m in messages):
        drop_thinking = False
    if thinking and drop_thinking:
        messages = _drop_reasoning(messages)
    last_user = max((i for i, m in enumerate(messages) if m["role"] in ("user", "developer")), default=-1)
    segments = [(BOS + (MAX_EFFORT if thinking and max_effort else ""), False)]
    for index, message in enumerate(messages):
        role, content = message["role"], message.get("content") or ""
        if role == "system":
            segments.append((_render_system(message), False))
        elif role == "latest_reminder":
            segments.append((REMINDER + content, False))
        elif role == "assistant":
            text = ""
            if thinking and (not drop_thinking or index > last_user):
                text = (message.get("reasoning_content") or "") + END_THINK
            text += content
            calls = _call_pairs(message)
            if calls:
                text += "\n\n" + render_calls(calls)
            segments.append((text if message.get("wo_eos") else text + EOS, True))
        else:
            body = content
            if role == "developer" and message.get("tools"):
                body += "\n\n" + render_tools(message["tools"])
            segments.append((USER + body, False))
        following = messages[index + 1]["role"] if index + 1 < len(messages) else "assistant"
        if following not in ("assistant", "latest_reminder"):
            continue
        task = message.get("task")
        mark = THINK if thinking and (not drop_thinking or index >= last_user) else END_THINK
        if task:
            segments.append((ASSISTANT + mark + TASK_TOKENS[task] if task == "action" else TASK_TOKENS[task], False))
        elif role in ("user", "developer"):
            segments.append((ASSISTANT + mark, False))
    return segments


def render_text(messages, thinking, **options):
    """The rendered conversation as one string."""
    return "".join(text for text, _ in render(messages, thinking, **options))
