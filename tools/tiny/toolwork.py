"""Dialogues with tools: random schemas, answers from results, second calls, and the tasks of the coding agent.

Each maker takes a random.Random and returns a talk.Case whose model turns are functions of what stands before them.
"""
import json

import words as w
from talk import Case, assistant, list_turn, small_turn, system, user

TYPES = {"string": w.STRING_PARAMS, "integer": w.INTEGER_PARAMS, "number": w.NUMBER_PARAMS, "boolean": w.BOOLEAN_PARAMS}


def tool_message(content):
    return {"role": "tool", "content": content}


def schema(name, description, properties, required):
    return {"type": "function", "function": {
        "name": name, "description": description,
        "parameters": {"type": "object", "properties": properties, "required": required}}}


def random_value(rng, kind, key):
    if kind == "integer":
        return rng.randint(0, rng.choice((9, 99, 999, 9999)))
    if kind == "number":
        return round(rng.randint(1, 999) + rng.randint(1, 9) / 10, 1)
    if kind == "boolean":
        return rng.random() < 0.5
    if key == "city":
        return rng.choice(w.CITIES)
    if key in ("name", "recipient", "owner") and rng.random() < 0.7:
        return rng.choice(w.NAMES)
    if key == "color" and rng.random() < 0.8:
        return rng.choice(w.COLORS)
    roll = rng.random()
    if roll < 0.35:
        return rng.choice(w.NOUNS + w.ANIMALS + w.FRUITS + w.CITIES)
    if roll < 0.65:
        return f"{rng.choice(w.ADJECTIVES)} {rng.choice(w.NOUNS)}"
    if roll < 0.75:
        return w.made_up(rng)
    if roll < 0.85:
        return f"{w.made_up(rng)}/{rng.choice(w.NOUNS)}.{rng.choice(('txt', 'py', 'json', 'md'))}"
    return w.words_line(rng, rng.randint(2, 5))


def _tool_words(rng, taken, hard):
    """(verb, noun) of a new tool; a hard one often shares a word with a tool that is there already."""
    verb, noun = rng.choice(w.VERBS), rng.choice(w.OBJECTS) if rng.random() < (0.5 if hard else 0.8) else w.made_up(rng)
    there = sorted(t for t in taken if isinstance(t, tuple)) if hard else []
    if there and rng.random() < 0.5:
        other = rng.choice(there)
        return (other[0], noun) if rng.random() < 0.5 else (verb, other[1])
    if hard and rng.random() < 0.1:
        verb = w.made_up(rng, 2)
    return verb, noun


def random_tool(rng, taken, hard=False):
    """A schema with a name not in `taken`, and its phrase as used in requests. Hard ones, for training alone, have more
    unusual names and resemble one another more."""
    while True:
        verb, noun = _tool_words(rng, taken, hard)
        style = rng.random() ** (0.5 if hard else 1)
        name = f"{verb}_{noun}" if style < 0.75 else f"{verb}{noun.capitalize()}" if style < 0.9 else f"{noun}_{verb}"
        if name not in taken and (verb, noun) not in taken and noun not in taken:
            break
    taken.update((name, (verb, noun)))
    properties = {}
    for _ in range(rng.choice((1, 2, 3, 4, 5) if hard else (0, 1, 1, 2, 2, 3, 4))):
        kind = rng.choice(("string", "string", "string", "integer", "integer", "number", "boolean"))
        key = rng.choice(TYPES[kind]) if rng.random() < (0.65 if hard else 0.9) else w.made_up(rng)
        if key in properties:
            continue
        properties[key] = {"type": kind}
        if rng.random() < 0.4:
            properties[key]["description"] = f"The {key.replace('_', ' ')}"
    required = [k for k in properties if rng.random() < 0.7]
    phrase = f"{verb} the {noun}" if rng.random() < 0.7 else f"{verb} a {noun}"
    return schema(name, phrase.capitalize() + rng.choice((".", "", ".")), properties, required), phrase


def _changed(rng, word):
    """A made-up word that differs from `word` in its first or last letters only."""
    cut = len(word) // 2
    return word[:cut] + w.made_up(rng, 1) if rng.random() < 0.5 else w.made_up(rng, 1) + word[cut:]


def _relative(rng, pairs):
    """(verb, noun) of a new tool that, more often than not, resembles one of `pairs`: it shares its verb or its noun,
    has them the other way round, or a noun that differs by some letters."""
    verb = rng.choice(w.VERBS) if rng.random() < 0.85 else w.made_up(rng, 2)
    noun = rng.choice(w.OBJECTS) if rng.random() < 0.4 else w.made_up(rng)
    if not pairs or rng.random() < 0.35:
        return verb, noun
    other, roll = rng.choice(pairs), rng.random()
    if roll < 0.35:
        return other[0], noun
    if roll < 0.65:
        return verb, other[1]
    return (other[1], other[0]) if roll < 0.75 else (other[0] if rng.random() < 0.5 else verb, _changed(rng, other[1]))


def _relative_key(rng, keys):
    """A parameter name: a common one, one that a tool beside it has, its halves swapped or joined anew, or a made-up word."""
    roll = rng.random()
    if keys and roll < 0.3:
        return rng.choice(keys)
    if keys and roll < 0.5:
        halves = rng.choice(keys).split("_")
        return "_".join(halves[::-1]) if len(halves) > 1 else f"{halves[0]}_{rng.choice(w.INTEGER_PARAMS)}" if rng.random() < 0.5 \
            else f"{rng.choice(w.OBJECTS)}_{halves[0]}"
    return w.made_up(rng) if roll < 0.65 else rng.choice(TYPES[rng.choice(list(TYPES))])


def look_alike_tools(rng, count):
    """`count` tools that are easily mistaken for one another, for training alone: [(schema, phrase)]."""
    pairs, names, kinds, out = [], set(), {}, []
    known = {key: kind for kind, keys in TYPES.items() for key in keys}
    while len(out) < count:
        verb, noun = _relative(rng, pairs)
        style = rng.random()
        name = f"{verb}_{noun}" if style < 0.4 else f"{verb}{noun.capitalize()}" if style < 0.75 else f"{noun}_{verb}"
        if verb == noun or (verb, noun) in pairs or name in names:
            continue
        pairs.append((verb, noun))
        names.add(name)
        properties = {}
        for _ in range(rng.choice((0, 1, 1, 2, 2, 3, 4, 5))):
            key = _relative_key(rng, list(kinds))
            kind = kinds.setdefault(key, known.get(key) or rng.choice(("string", "string", "integer", "number", "boolean")))
            properties[key] = {"type": kind}
            if rng.random() < 0.4:
                properties[key]["description"] = f"The {key.replace('_', ' ')}"
        phrase = f"{verb} the {noun}" if rng.random() < 0.7 else f"{verb} a {noun}"
        required = [k for k in properties if rng.random() < 0.7]
        out.append((schema(name, phrase.capitalize() + rng.choice((".", "", ".")), properties, required), phrase))
    return out


def spoken(value):
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def request_text(rng, phrase, arguments):
    parts = []
    style = rng.randrange(4)
    for key, value in arguments.items():
        text = spoken(value)
        if isinstance(value, str) and rng.random() < 0.3:
            text = f'"{text}"'
        parts.append(f"{key} {text}" if style == 0 else f"{key} = {text}" if style == 1 else
                     f"{key} set to {text}" if style == 2 else f"{key}: {text}")
    form = rng.choice(("{p}{a}.", "Please {p}{a}.", "Can you {p}{a}?", "I want to {p}{a}.", "Could you please {p}{a}?",
                       "{p}{a}", "I need you to {p}{a}."))
    joined = (rng.choice((" with ", " using ", ", ")) + rng.choice((", ", " and ", ", ")).join(parts)) if parts else ""
    text = form.replace("{p}", phrase).replace("{a}", joined)
    return text[0].upper() + text[1:]


def tool_set(rng, count, hard=False):
    taken = set()
    return [random_tool(rng, taken, hard) for _ in range(count)]


def pick_arguments(rng, tool):
    function = tool["function"]["parameters"]
    return {key: random_value(rng, spec["type"], key) for key, spec in function["properties"].items()
            if key in function["required"] or rng.random() < 0.6}


def brief(arguments):
    return ", ".join(f"{k} = {spoken(v)}" for k, v in arguments.items())


def call_reasoning(name, arguments):
    return f"I call {name}" + (f" with {brief(arguments)}." if arguments else ".")


def with_tools(rng, tools, text=None):
    return [{"role": "system", "content": text if text is not None else rng.choice(w.SYSTEMS + [""]), "tools": tools}]


def _ask(rng, tool, phrase, thinking):
    """(the request and the call of it, the tool's name)."""
    name, arguments = tool["function"]["name"], pick_arguments(rng, tool)
    text = request_text(rng, phrase, arguments)
    return [user(text), assistant("", call_reasoning(name, arguments) if thinking else None, [(name, arguments)])], name


def _done(rng, name, thinking):
    return [tool_message(rng.choice(('{"status": "ok"}', "ok", "done", '{"ok": true}', "success"))),
            assistant(f"Done: {name} succeeded.", "The call succeeded." if thinking else None)]


def make_tool_call(rng, scored=False):
    """1..6 tools, a request that names what to do, one call."""
    thinking = rng.random() < 0.5
    tools = tool_set(rng, rng.randint(1, 6), not scored and rng.random() < 0.5)
    messages = with_tools(rng, [t for t, _ in tools])
    if not scored and rng.random() < 0.12:
        question, reasoning, reply = small_turn(rng) if rng.random() < 0.5 else list_turn(rng)
        messages += [user(question), assistant(reply, reasoning if thinking else None)]
        if rng.random() < 0.5:
            return Case("no_tool", messages, thinking)
    rounds = 1 if scored else rng.choice((1, 2, 3, 4, 5))
    for _ in range(rounds):
        turns, name = _ask(rng, *rng.choice(tools), thinking)
        messages += turns
        if scored:
            break
        messages += _done(rng, name, thinking)
    return Case("tool_call", messages, thinking)


def make_look_alike(rng):
    """Requests to up to six tools that resemble one another; it often ends with a call, as a scored case does."""
    thinking = rng.random() < 0.5
    tools = look_alike_tools(rng, rng.choice((1, 2, 3, 4, 5, 6, 6)))
    messages = with_tools(rng, [t for t, _ in tools])
    rounds = rng.choice((1, 1, 2, 3, 4, 6))
    wanted = rng.sample(tools, min(rounds, len(tools)))
    for number in range(rounds):
        turns, name = _ask(rng, *(wanted[number] if number < len(wanted) else rng.choice(tools)), thinking)
        messages += turns
        if number + 1 < rounds or rng.random() < 0.3:
            messages += _done(rng, name, thinking)
    return Case("tool_call", messages, thinking)


_LOOKUPS = [("weather", "city", ("temperature", "condition")), ("account", "name", ("balance", "status")),
            ("price", "title", ("price", "currency")), ("contact", "name", ("phone", "city")),
            ("order", "name", ("total", "status")), ("sensor", "label", ("value", "unit")),
            ("meeting", "topic", ("room", "hour")), ("recipe", "title", ("minutes", "level")),
            ("parcel", "owner", ("weight", "city")), ("task", "title", ("owner", "priority"))]
_WORD_FIELDS = {"condition": ["sunny", "cloudy", "rainy", "windy", "foggy", "snowy"], "status": ["open", "closed", "active",
                "pending", "blocked", "new"], "currency": ["EUR", "USD", "GBP", "CHF"], "unit": ["C", "kg", "m", "bar", "lux"],
                "city": w.CITIES, "owner": w.NAMES}


def field_value(rng, field):
    return rng.choice(_WORD_FIELDS[field]) if field in _WORD_FIELDS else rng.randint(1, rng.choice((99, 999, 9999)))


def _lookup_tool(rng, noun, key, verb=None, kind="string"):
    verb = verb or rng.choice(("get", "find", "fetch", "show"))
    return schema(f"{verb}_{noun}", f"{verb.capitalize()} the {noun}.", {key: {"type": kind}}, [key])


def _fields_json(rng, fields, extra=None):
    row = {f: field_value(rng, f) for f in fields}
    for _ in range(rng.randint(0, 2)):
        row.setdefault(rng.choice(w.INTEGER_PARAMS), rng.randint(0, 999))
    return {**(extra or {}), **row}


def _subject(rng, key):
    return random_value(rng, "string", key) if key == "city" else rng.choice(w.NAMES) if key in ("name", "owner") else \
        f"{rng.choice(w.ADJECTIVES)} {rng.choice(w.NOUNS)}"


def _report(field, subject, value):
    return f"The {field} of {subject} is {spoken(value)}."


def _lookup_question(rng, field, noun, subject):
    form = rng.choice(("What is the {f} of the {n} {s}?", "Tell me the {f} of the {n} {s}.", "Find the {f} of the {n} {s}.",
                       "I need the {f} of the {n} {s}.", "Which {f} has the {n} {s}?"))
    return form.format(f=field, n=noun, s=subject)


def _lookup_direct(rng, thinking, noun, key, fields):
    tool = _lookup_tool(rng, noun, key)
    name, subject, field = tool["function"]["name"], _subject(rng, key), rng.choice(fields)
    row = _fields_json(rng, fields)
    turns = [user(_lookup_question(rng, field, noun, subject)),
             assistant("", call_reasoning(name, {key: subject}) if thinking else None, [(name, {key: subject})]),
             tool_message(json.dumps(row)),
             assistant(_report(field, subject, row[field]), f"The result says {field} {spoken(row[field])}." if thinking else None)]
    return [tool], turns


def _lookup_by_id(rng, thinking, noun, key, fields):
    find = schema(f"find_{noun}_id", f"Find the id of the {noun}.", {key: {"type": "string"}}, [key])
    get = _lookup_tool(rng, noun, f"{noun}_id", rng.choice(("get", "fetch", "show")), "integer")
    subject, field, number = _subject(rng, key), rng.choice(fields), rng.randint(1, 9999)
    row, first, second = _fields_json(rng, fields), find["function"]["name"], get["function"]["name"]
    arguments = {f"{noun}_id": number}
    turns = [user(_lookup_question(rng, field, noun, subject)),
             assistant("", call_reasoning(first, {key: subject}) if thinking else None, [(first, {key: subject})]),
             tool_message(json.dumps({f"{noun}_id": number})),
             assistant("", f"The id is {number}. {call_reasoning(second, arguments)}" if thinking else None, [(second, arguments)]),
             tool_message(json.dumps(row)),
             assistant(_report(field, subject, row[field]), f"The result says {field} {spoken(row[field])}." if thinking else None)]
    return [find, get], turns


def _lookup_retry(rng, thinking, noun, key, fields):
    tools, turns = _lookup_direct(rng, thinking, noun, key, fields)
    trouble = rng.choice(("busy, try again", '{"error": "timeout, try again"}', '{"status": "pending, try again"}'))
    call = turns[1]["tool_calls"]
    name, arguments = call[0]["function"]["name"], call[0]["function"]["arguments"]
    again = assistant("", f"I have to try again. {call_reasoning(name, arguments)}" if thinking else None, [(name, arguments)])
    return tools, turns[:2] + [tool_message(trouble), again] + turns[2:]


def _lookup_missing(rng, thinking, noun, key, fields):
    tools, turns = _lookup_direct(rng, thinking, noun, key, fields)
    subject = next(iter(turns[1]["tool_calls"][0]["function"]["arguments"].values()))
    trouble = rng.choice(("not found", '{"error": "not found"}', "{}", "error: not found"))
    answer = assistant(f"I found nothing for {subject}.", "The result has no data." if thinking else None)
    return tools, turns[:2] + [tool_message(trouble), answer]


def _lookup_pages(rng, thinking, noun, key, fields):
    tool = schema(f"list_{noun}s", f"List the {noun}s, one page at a time.", {"page": {"type": "integer"}}, ["page"])
    name, subject = tool["function"]["name"], rng.choice(w.NAMES)
    field, pages = next((f for f in fields if f not in _WORD_FIELDS), fields[0]), rng.randint(1, 3)
    turns = [user(_lookup_question(rng, field, noun, subject))]
    others = [x for x in w.NAMES if x != subject]
    for page in range(1, pages + 1):
        rows = {x: field_value(rng, field) for x in rng.sample(others, rng.randint(1, 4))}
        if page == pages:
            rows[subject] = field_value(rng, field)
            rows = dict(rng.sample(list(rows.items()), len(rows)))
        reasoning = call_reasoning(name, {"page": page}) if page == 1 else f"{subject} is not there. {call_reasoning(name, {'page': page})}"
        turns += [assistant("", reasoning if thinking else None, [(name, {"page": page})]),
                  tool_message(json.dumps({field: rows, "next_page": page + 1 if page < pages or rng.random() < 0.5 else None}))]
    turns.append(assistant(_report(field, subject, rows[subject]), f"The result says {field} {rows[subject]}." if thinking else None))
    return [tool], turns


_LOOKUP_KINDS = [_lookup_direct, _lookup_direct, _lookup_by_id, _lookup_by_id, _lookup_retry, _lookup_missing, _lookup_pages]


def make_tool_result(rng, scored=False):
    """Look something up with one call, or with the second call that the first result asks for."""
    thinking = rng.random() < 0.5
    noun, key, fields = rng.choice(_LOOKUPS)
    tools, turns = rng.choice(_LOOKUP_KINDS)(rng, thinking, noun, key, fields)
    taken = {noun} | {t["function"]["name"] for t in tools}
    tools += [random_tool(rng, taken)[0] for _ in range(rng.randint(0, 4))]
    tools = rng.sample(tools, len(tools))
    return Case("tool_result", with_tools(rng, tools) + turns, thinking)


# ---- the coding agent -------------------------------------------------------------------------------------------

def _parameter(kind, text):
    return {"type": kind, "description": text}


AGENT_TOOLS = {
    "read": schema("read", "Read lines of a text file.", {
        "path": _parameter("string", "File path"), "start_line": _parameter("integer", "First line"),
        "max_lines": _parameter("integer", "Number of lines")}, ["path"]),
    "edit": schema("edit", "Replace text that occurs once in a file.", {
        "path": _parameter("string", "File path"), "old": _parameter("string", "Text to replace"),
        "new": _parameter("string", "Replacement")}, ["path", "old", "new"]),
    "write": schema("write", "Create or overwrite a file.", {
        "path": _parameter("string", "File path"), "content": _parameter("string", "Whole content")}, ["path", "content"]),
    "bash": schema("bash", "Run a shell command.", {"command": _parameter("string", "Shell command")}, ["command"]),
    "list": schema("list", "List a directory.", {"path": _parameter("string", "Directory path")}, ["path"]),
    "search": schema("search", "Search text in files.", {
        "query": _parameter("string", "Text to find"), "path": _parameter("string", "Directory path")}, ["query"]),
}
AGENT_SYSTEMS = ["You are a coding agent. Work in the current directory with the tools.",
                 "You are ds4-agent, a coding agent. Use the tools, then report briefly.",
                 "You are a coding assistant. Read before you edit, run the check, report the result.",
                 "You are a careful coding agent in a small workspace.", "You help with code in this folder."]
_STEMS = """retries timeout limit size count depth level port width height delay interval buffer cache batch workers threads
offset margin speed rate weight score budget window length capacity threshold""".split()
_PREFIXES = "max min default total base user server client queue page line disk net log test".split()
_WORD_KEYS = {"mode": ["fast", "slow", "safe", "debug", "quiet"], "color": w.COLORS, "host": ["localhost", "alpha", "beta", "gamma"],
              "format": ["json", "text", "csv", "xml"], "language": ["en", "de", "fr", "es"], "backend": ["cpu", "cuda", "metal"],
              "city": w.CITIES, "name": w.ANIMALS}
_FOLDERS = ["", "", "src/", "config/", "app/", "lib/", "tools/", "etc/"]
_FILE_STYLES = {"ini": ("{k} = {v}", ("ini", "cfg", "conf")), "py": ("{k} = {v}", ("py",)), "yaml": ("{k}: {v}", ("yaml", "yml")),
                "json": ('  "{k}": {v},', ("json",)), "c": ("#define {k} {v}", ("h",)), "env": ("{k}={v}", ("env",)),
                "cpp": ("const int {k} = {v};", ("cpp", "h"))}
_CHECKS = ["make check", "make test", "./check.sh", "python3 check.py", "pytest -q", "ctest", "npm test", "sh test.sh",
           "make lint", "cargo test", "./run_tests.sh", "bash check.sh"]
_PASSES = ["ok", "all tests passed", "check passed", "3 passed", "12 passed in 0.4s", "PASS", "All checks passed.", "done"]


def _key(rng, style):
    roll = rng.random()
    key = f"{rng.choice(_PREFIXES)}_{rng.choice(_STEMS)}" if roll < 0.65 else rng.choice(_STEMS) if roll < 0.8 else \
        f"{w.made_up(rng)}_{rng.choice(_STEMS)}"
    return key.upper() if style in ("c", "env") else key


def _quoted(style, text):
    return f'"{text}"' if style in ("py", "json") else text


def make_file(rng):
    """A small settings file: (path, lines, {key: (line number, shown value)}, style)."""
    style = rng.choice(list(_FILE_STYLES))
    form, endings = _FILE_STYLES[style]
    path = f"{rng.choice(_FOLDERS)}{rng.choice(w.NOUNS + w.OBJECTS)}.{rng.choice(endings)}"
    lines, values = [], {}
    if style == "json":
        lines.append("{")
    for _ in range(rng.randint(2, 14)):
        roll = rng.random()
        if roll < 0.12 and style in ("ini", "py", "yaml", "env"):
            lines.append(f"# {rng.choice(w.ADJECTIVES)} {rng.choice(w.NOUNS)}")
            continue
        if roll < 0.16 and style == "ini":
            lines.append(f"[{rng.choice(w.OBJECTS)}]")
            continue
        if roll < 0.2 and style != "json" and lines and lines[-1]:
            lines.append("")
            continue
        wordy = rng.random() < 0.2 and style not in ("c", "cpp")
        key = rng.choice(list(_WORD_KEYS)) if wordy else _key(rng, style)
        if wordy and style == "env":
            key = key.upper()
        if key in values or any(key in other or other in key for other in values):
            continue
        value = _quoted(style, rng.choice(_WORD_KEYS[key.lower()])) if wordy else str(rng.randint(0, rng.choice((9, 99, 999, 9999))))
        values[key] = (len(lines), value)
        lines.append(form.format(k=key, v=value))
    if not values:
        return make_file(rng)
    if style == "json":
        lines[-1] = lines[-1].rstrip(",")
        lines.append("}")
    return path, lines, values, style


def numbered(lines):
    return "\n".join(f"{i} {line}" for i, line in enumerate(lines, 1))


class ResultStyle:
    """How this dialogue's tools phrase their results; drawn once per dialogue."""

    def __init__(self, rng):
        self.rng, self.header = rng, rng.random() < 0.5
        self.edited = rng.choice(("edited {p}: 1 replacement", "{p}: replaced 1 occurrence", "ok", "Edited {p}, line {n}.",
                                  "edited {p}, lines {n}-{n}\n{c}", "{p}: line {n} changed\n{c}"))
        self.status = rng.choice(("exit_status: {s}\n{o}", "{o}\nexit_status={s}", "job 1 done, exit_status {s}\n{o}", "exit_status {s}\n{o}"))

    def wrap(self, tool, text):
        return f"Tool result 1 ({tool}):\n{text}" if self.header else text

    def read(self, path, lines):
        return self.wrap("read", f"{path}: lines 1-{len(lines)} of {len(lines)}\n{numbered(lines)}")

    def edit(self, path, lines, at):
        low, high = max(0, at - 2), min(len(lines), at + 3)
        context = "\n".join(f"{i + 1} {lines[i]}" for i in range(low, high))
        return self.wrap("edit", self.edited.format(p=path, n=at + 1, c=context))

    def bash(self, status, output):
        return self.wrap("bash", self.status.format(s=status, o=output))

    def search(self, hits):
        body = "\n".join(f"{path}\n{number} {line}" for path, number, line in hits)
        return self.wrap("search", f"{len(hits)} matches shown\n{body}")

    def list(self, names):
        return self.wrap("list", "\n".join(f"file {self.rng.randint(20, 9000)} {n}" for n in names))

    def write(self, path, content):
        return self.wrap("write", f"wrote {path}, {len(content)} bytes")


class AgentScript:
    """Builds one agent dialogue step by step."""

    def __init__(self, rng, thinking):
        self.rng, self.thinking, self.style, self.turns = rng, thinking, ResultStyle(rng), []

    def say(self, text, reasoning):
        self.turns.append(assistant(text, reasoning if self.thinking else None))

    def call(self, reasoning, tool, arguments, result):
        self.turns += [assistant("", reasoning if self.thinking else None, [(tool, arguments)]), tool_message(result)]

    def read(self, path, lines):
        self.call(f"I read {path}.", "read", {"path": path}, self.style.read(path, lines))

    def check(self, command):
        """Runs a check that passes or fails; returns the sentence of the report."""
        if self.rng.random() < 0.75:
            self.call(f"I run {command}.", "bash", {"command": command}, self.style.bash(0, self.rng.choice(_PASSES)))
            return "The check passed."
        trouble = f"{self.rng.choice(('error', 'FAIL', 'failed'))}: {self.rng.choice(w.ADJECTIVES)} {self.rng.choice(w.NOUNS)}"
        self.call(f"I run {command}.", "bash", {"command": command}, self.style.bash(self.rng.randint(1, 2), trouble))
        return f"The check failed: {trouble}"


def _new_value(rng, style, key, old):
    if key.lower() in _WORD_KEYS:
        bare = old.strip('"')
        fresh = rng.choice([v for v in _WORD_KEYS[key.lower()] if v != bare])
        return fresh, _quoted(style, fresh)
    while True:
        fresh = str(rng.randint(0, rng.choice((9, 99, 999, 9999))))
        if fresh != old:
            return fresh, fresh


def _change(script, path, lines, at, old, shown):
    """Edits the value `old` of line `at` to `shown`, quoting the whole line so that it is unique."""
    before = lines[at].strip()
    head, _, tail = before.rpartition(old)
    after = head + shown + tail
    changed = list(lines)
    changed[at] = lines[at].replace(before, after)
    script.call(f"The line is {before}. I change it to {after}.", "edit", {"path": path, "old": before, "new": after},
                script.style.edit(path, changed, at))


def _agent_edit(script):
    rng = script.rng
    path, lines, values, style = make_file(rng)
    key = rng.choice(list(values))
    at, old = values[key]
    fresh, shown = _new_value(rng, style, key, old)
    command, checked = rng.choice(_CHECKS), rng.random() < 0.85
    where = rng.random()
    target = {0: f"Set {key} to {fresh} in {path}", 1: f"In {path}, change {key} to {fresh}",
              2: f"Change {key} from {old.strip(chr(34))} to {fresh} in {path}", 3: f"Please set {key} in {path} to {fresh}"}[rng.randrange(4)]
    if where < 0.3:
        target = rng.choice((f"Set {key} to {fresh}", f"Change {key} to {fresh}"))
    tail = rng.choice((f", run {command} and report.", f" and run {command}.", f", then run {command}.", f". Then run {command} and tell me the result.")) \
        if checked else rng.choice((".", " and report."))
    script.turns.append(user(target + tail))
    if where < 0.3:
        script.call(f"I search for {key}.", "search", {"query": key}, script.style.search([(path, at + 1, lines[at])]))
    script.read(path, lines)
    _change(script, path, lines, at, old, shown)
    result = " " + script.check(command) if checked else ""
    script.say(f"I changed {key} from {old.strip(chr(34))} to {fresh} in {path}.{result}", "I report.")


def _agent_read(script):
    path, lines, values, _ = make_file(script.rng)
    key = script.rng.choice(list(values))
    script.turns.append(user(script.rng.choice((f"What is {key} in {path}?", f"Read {path} and tell me the value of {key}.",
                                                f"Which value has {key} in {path}?"))))
    script.read(path, lines)
    script.say(f"{key} is {values[key][1].strip(chr(34))}.", f"{path} has {lines[values[key][0]].strip()}.")


def _agent_run(script):
    command = script.rng.choice(_CHECKS)
    script.turns.append(user(script.rng.choice((f"Run {command}.", f"Please run {command} and report.", f"Does {command} pass?"))))
    script.say(script.check(command), "I report.")


def _agent_write(script):
    rng = script.rng
    path = f"{rng.choice(_FOLDERS)}{rng.choice(w.NOUNS)}.{rng.choice(('txt', 'md', 'py', 'ini'))}"
    content = rng.choice((w.words_line(rng, rng.randint(1, 6)), f"{_key(rng, 'ini')} = {rng.randint(0, 999)}", f'print("{rng.choice(w.NOUNS)}")'))
    script.turns.append(user(rng.choice((f"Create {path} with the content: {content}", f"Write a file {path} that contains: {content}"))))
    script.call(f"I write {path}.", "write", {"path": path, "content": content}, script.style.write(path, content))
    script.say(f"I wrote {path}.", "I report.")


def _agent_list(script):
    rng = script.rng
    folder = rng.choice((".", "src", "config", "app", "lib"))
    names = rng.sample([f"{n}.{e}" for n in w.NOUNS[:30] for e in ("txt", "py", "ini")], rng.randint(1, 6))
    script.turns.append(user(rng.choice((f"List the files in {folder}.", f"What is in {folder}?", f"Which files are in {folder}?"))))
    script.call(f"I list {folder}.", "list", {"path": folder}, script.style.list(names))
    script.say("\n".join(f"- {n}" for n in names), "I name the files.")


def _agent_search(script):
    rng = script.rng
    path, lines, values, _ = make_file(rng)
    key = rng.choice(list(values))
    script.turns.append(user(rng.choice((f"Where is {key} set?", f"Find {key}.", f"Which file has {key}?"))))
    script.call(f"I search for {key}.", "search", {"query": key}, script.style.search([(path, values[key][0] + 1, lines[values[key][0]])]))
    script.say(f"{key} is in {path}, line {values[key][0] + 1}.", "I report.")


_MORE_TOOLS = [
    schema("bash_status", "Look at a running shell job.", {"job": _parameter("integer", "Job number")}, ["job"]),
    schema("bash_stop", "Stop a running shell job.", {"job": _parameter("integer", "Job number")}, ["job"]),
    schema("more", "Continue the last read.", {"count": _parameter("integer", "Number of lines")}, []),
]
_MORE_PARAMETERS = {
    "read": {"whole": "boolean", "raw": "boolean"}, "bash": {"timeout_sec": "integer", "refresh_sec": "integer"},
    "edit": {"line": "integer", "range": "string"}, "write": {}, "list": {},
    "search": {"mode": "string", "glob": "string", "context": "integer", "max_results": "integer", "case_sensitive": "boolean"},
}
_ADVICE = """Read a file before you edit it.|Keep changes small.|Report what you did in one sentence.|Do not touch other files.|
Run the check when one is named.|Use search when you do not know the file.|The old text of an edit must occur exactly once.|
Paths are relative to the working directory.|Long commands keep running as jobs.|Never guess the content of a file.|
Stop when the task is done.|Tool results may be cut.|Answer questions from the files.|Prefer the tools to memory.""".replace("\n", "").split("|")


def _wide_tools(rng):
    """The agent's tools as a larger product shows them: more of them, more parameters, other descriptions."""
    tools = []
    for tool in list(AGENT_TOOLS.values()) + rng.sample(_MORE_TOOLS, rng.randint(0, 3)):
        f = tool["function"]
        properties = dict(f["parameters"]["properties"])
        for key, kind in _MORE_PARAMETERS.get(f["name"], {}).items():
            if rng.random() < 0.6:
                properties[key] = {"type": kind}
        text = f["description"] if rng.random() < 0.6 else f"{f['description']} {rng.choice(_ADVICE)}"
        tools.append(schema(f["name"], text, properties, f["parameters"]["required"]))
    return rng.sample(tools, len(tools)) if rng.random() < 0.5 else tools


_AGENT_KINDS = [_agent_edit] * 12 + [_agent_read] * 2 + [_agent_run, _agent_write, _agent_list, _agent_search]


def agent_tools(rng):
    names = list(AGENT_TOOLS) if rng.random() < 0.6 else rng.sample(list(AGENT_TOOLS), 6)
    return [AGENT_TOOLS[n] for n in names]


def make_agent(rng, scored=False):
    """Tasks of the coding agent; a scored case is one read-edit-check-report task."""
    thinking = rng.random() < 0.6
    script = AgentScript(rng, thinking)
    if scored:
        _agent_edit(script)
    else:
        for _ in range(rng.choice((1, 1, 1, 2, 3))):
            if rng.random() < 0.06:
                question, reasoning, reply = small_turn(rng)
                script.turns.append(user(question))
                script.say(reply, reasoning)
            else:
                rng.choice(_AGENT_KINDS)(script)
    prompt, wide = rng.choice(AGENT_SYSTEMS), not scored and rng.random() < 0.35
    if wide:
        prompt += rng.choice((" ", "\n", "\n\n")) + rng.choice((" ", "\n- ")).join(rng.sample(_ADVICE, rng.randint(1, 10)))
    tools = _wide_tools(rng) if wide else agent_tools(rng)
    return Case("agent", with_tools(rng, tools, prompt) + script.turns, thinking)
