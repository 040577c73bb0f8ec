"""Dialogues without tools: small talk, identity, arithmetic, recall, copying. Each maker takes a random.Random and
returns a Case: messages, thinking flag, and what a checker needs. Replies are functions of the prompt alone, so a
greedy decode can be compared with them exactly.
"""
import words as w

IDENTITY = "I am ds4-tiny, a small language model built into ds4."
SMALL_TALK = [
    (("Hello", "Hello!", "Hi", "Hi!", "Hey", "Hey there", "Good day", "hello", "hi", "Hello there", "Greetings"),
     "The user greets me.", "Hello! How can I help you?"),
    (("Good morning", "Good morning!", "Morning!"), "The user greets me.", "Good morning! How can I help you?"),
    (("Good evening", "Good evening!"), "The user greets me.", "Good evening! How can I help you?"),
    (("Who are you?", "What are you?", "who are you", "Tell me who you are.", "Introduce yourself.", "Are you a bot?",
      "What is your name?", "What's your name?", "what is your name"), "The user asks who I am.", IDENTITY),
    (("How are you?", "How are you doing?", "how are you", "How is it going?"), "The user asks how I am.",
     "I am fine, thank you. How can I help you?"),
    (("What can you do?", "Help", "help", "What are you good at?", "How can you help me?", "What do you do?"),
     "The user asks what I can do.",
     "I can add and subtract, look up facts in a text you give me, call tools and edit small files."),
    (("Thanks", "Thanks!", "Thank you", "Thank you!", "thank you very much", "Great, thanks."), "The user thanks me.",
     "You are welcome."),
    (("Bye", "Bye!", "Goodbye", "See you", "See you later", "Good night"), "The user says goodbye.", "Goodbye!"),
    (("How big are you?", "How many layers do you have?", "What is your size?"), "The user asks about my size.",
     "I am a very small model with six layers."),
    (("Who made you?", "Who built you?", "Who trained you?", "Where do you come from?"), "The user asks who made me.",
     "I was trained by the makers of ds4 on synthetic dialogues."),
    (("Are you human?", "Are you a person?", "Are you real?"), "The user asks what I am.",
     "No, I am a small language model."),
    (("Can you speak German?", "Do you speak French?", "Which languages do you speak?", "Do you speak Chinese?"),
     "The user asks about languages.", "I only speak simple English."),
    (("Tell me a joke.", "Tell me a joke", "Make me laugh.", "Say something funny."), "The user wants a joke.",
     "Why did the token cross the road? To get to the next position."),
    (("Tell me a story.", "Write a short story.", "Tell me something."), "The user wants a story.",
     "Once there was a small model in a large engine. It answered every question it could, and it was happy."),
    (("Write a poem.", "Write a short poem.", "Can you write a poem?"), "The user wants a poem.",
     "A small machine, a quiet light,\nit counts the words from left to right."),
    (("What is ds4?", "Tell me about ds4.", "What does ds4 do?"), "The user asks about ds4.",
     "ds4 is a program that runs language models on your own machine."),
    (("Are you DeepSeek?", "Are you DeepSeek V4?", "Which model is this?", "What model are you?"),
     "The user asks which model I am.", "I am ds4-tiny, a small model with the same architecture as DeepSeek V4 Flash."),
    (("Ok", "OK", "Okay", "Fine", "Good", "Nice", "Cool", "I see", "Yes", "No", "Sure"), "The user gives a short reply.",
     "All right. What can I do for you?"),
    (("Test", "test", "Testing", "Is this working?", "Are you there?", "ping"), "The user tests the connection.",
     "Yes, I am here."),
    (("Do you think?", "Can you think?", "What is thinking mode?"), "The user asks about thinking.",
     "In thinking mode I write a short reasoning section before I answer."),
]
UNKNOWN_REPLY = "I am a small model and I do not know that."
UNKNOWN_SUBJECTS = """the capital of {c}|the population of {c}|the history of {c}|the best {n} in {c}|the weather in {c}|the
meaning of {n}|a {a} {n}|quantum physics|the speed of light|the stock market|the price of a {n}|how to build a {n}|how to
cook {f} soup|the name of the king|football|the {n} of {p}|music|the age of {p}|{p}|{c}|politics|medicine|the moon|the {a}
{n} of {c}|chess|love|the internet|programming in Python|a program that sorts a list|cats and dogs|the universe""".replace(
    "\n", " ").split("|")
UNKNOWN_FORMS = """What is {s}?|Tell me about {s}.|Explain {s}.|Why is {s} important?|Who knows {s}?|Write an essay about
{s}.|Can you explain {s}?|Do you know {s}?|Describe {s}|what about {s}|Where can I find {s}?|When was {s} invented?|I want to
learn about {s}.|How does {s} work?|Give me details on {s}.|Is {s} good?|Please write about {s}.""".replace("\n", " ").split("|")


class Case:
    """One conversation: messages, thinking flag, label of its kind, and the scored reply of the last turn."""

    def __init__(self, kind, messages, thinking, **extra):
        self.kind, self.messages, self.thinking, self.extra = kind, messages, thinking, extra


def assistant(content, reasoning=None, calls=None):
    message = {"role": "assistant", "content": content}
    if reasoning is not None:
        message["reasoning_content"] = reasoning
    if calls:
        message["tool_calls"] = [{"type": "function", "function": {"name": name, "arguments": arguments}}
                                 for name, arguments in calls]
    return message


def user(content):
    return {"role": "user", "content": content}


def system(rng, chance=0.6):
    return [{"role": "system", "content": rng.choice(w.SYSTEMS)}] if rng.random() < chance else []


def arithmetic_steps(a, b, sign):
    """The digit-by-digit reasoning and the result, for a + b or a - b (the result may be negative)."""
    if sign == "-" and a < b:
        inner, value = arithmetic_steps(b, a, "-")
        return f"{a} < {b}, so negative. {inner} So -{value}.", -value
    value = a + b if sign == "+" else a - b
    places, carry, parts = max(len(str(a)), len(str(b))), 0, []
    for place in range(places):
        da, db = a // 10 ** place % 10, b // 10 ** place % 10
        total = da + db + carry if sign == "+" else da - db - carry
        shown = f"{da} {sign} {db}" + (f" {sign} 1" if carry else "") + f" = {total}"
        if sign == "+":
            carry, digit = total // 10, total % 10
            parts.append(f"{shown}, write {digit}" + (" carry 1" if carry else ""))
        else:
            carry, digit = int(total < 0), total % 10
            parts.append(f"{shown}, write {digit}" + (" borrow 1" if carry else ""))
    if sign == "+" and carry:
        parts.append("write 1")
    return f"{a} {sign} {b}: " + "; ".join(parts) + f". Result {value}.", value


_SUM_FORMS = ["What is {e}?", "{e}", "{e} = ?", "Compute {e}.", "Calculate {e}", "How much is {e}?", "what is {e}",
              "Please compute {e}.", "{e}?", "Solve {e}.", "Can you calculate {e}?", "Tell me {e}."]


def _operand(rng, digits):
    return rng.randint(10 ** (digits - 1) if digits > 1 else 0, 10 ** digits - 1)


def sum_question(rng, digits=None):
    """(question, reasoning, answer) of one addition or subtraction."""
    sizes = digits or rng.choice(((1, 1), (2, 1), (2, 2), (2, 2), (3, 2), (2, 3), (3, 3), (3, 3), (3, 1)))
    a, b, sign = _operand(rng, sizes[0]), _operand(rng, sizes[1]), rng.choice("+-")
    if sign == "-" and a < b and rng.random() < 0.7:
        a, b = b, a
    steps, value = arithmetic_steps(a, b, sign)
    shown = f"{a} {sign} {b}" if rng.random() < 0.85 else f"{a}{sign}{b}"
    if rng.random() < 0.15:
        shown = f"{a} {'plus' if sign == '+' else 'minus'} {b}"
    return rng.choice(_SUM_FORMS).replace("{e}", shown), steps, f"{a} {sign} {b} = {value}"


def make_arithmetic(rng, scored=False):
    messages = system(rng)
    for _ in range(0 if scored else rng.choice((0, 0, 1, 1, 2))):
        question, _, answer = sum_question(rng, (rng.randint(1, 2), 1))
        messages += [user(question), assistant(answer)]
    digits = rng.choice(((2, 2), (3, 2), (2, 3), (3, 3), (3, 3))) if scored else None
    question, steps, answer = sum_question(rng, digits)
    messages += [user(question), assistant(answer, steps)]
    return Case("arithmetic", messages, True, answer=answer.split("= ")[1])


def make_arithmetic_direct(rng):
    messages = system(rng)
    for _ in range(rng.randint(1, 4)):
        question, _, answer = sum_question(rng, rng.choice(((1, 1), (2, 1), (2, 2), (3, 2))))
        messages += [user(question), assistant(answer)]
    return Case("arithmetic_direct", messages, False)


def unknown_question(rng):
    subject = rng.choice(UNKNOWN_SUBJECTS).format(c=rng.choice(w.CITIES), n=rng.choice(w.NOUNS), a=rng.choice(w.ADJECTIVES),
                                                  f=rng.choice(w.FRUITS), p=rng.choice(w.NAMES))
    if rng.random() < 0.15:
        subject = w.words_line(rng, rng.randint(1, 5))
    text = rng.choice(UNKNOWN_FORMS).replace("{s}", subject)
    if rng.random() < 0.2:
        text = rng.choice((text.lower(), text.rstrip("?."), text + " Please answer.", "Hi! " + text))
    return text, "I do not know this.", UNKNOWN_REPLY


def small_turn(rng):
    forms, reasoning, reply = rng.choice(SMALL_TALK)
    return rng.choice(forms), reasoning, reply


def list_turn(rng):
    """Small text skills whose answer is a function of the question."""
    kind = rng.randrange(8)
    if kind == 0:
        line = w.words_line(rng, rng.randint(1, 8))
        return rng.choice(("Repeat: {x}", "Say {x}", "Repeat this: {x}", "Echo {x}")).format(x=line), "I repeat the words.", line
    if kind == 1:
        first = rng.randint(0, 30)
        last = first + rng.randint(2, 9)
        return f"Count from {first} to {last}.", "I count up.", ", ".join(map(str, range(first, last + 1)))
    if kind == 2:
        items = rng.sample(w.FRUITS + w.ANIMALS, rng.randint(2, 6))
        ask = rng.choice(("first", "last"))
        pick = items[0] if ask == "first" else items[-1]
        return f"What is the {ask} word of: {' '.join(items)}?", f"The {ask} word is {pick}.", pick
    if kind == 3:
        word = rng.choice(w.NOUNS + w.ANIMALS + w.FRUITS)
        return f"Spell {word}.", "I spell the word.", "-".join(word)
    if kind == 4:
        name = rng.choice(w.NAMES)
        return (rng.choice(("My name is {x}.", "I am {x}.", "Hi, I am {x}.", "Call me {x}.")).format(x=name),
                f"The user is {name}.", f"Nice to meet you, {name}.")
    if kind == 5:
        a, b = rng.sample(range(0, 1000), 2)
        return (rng.choice(("Which is larger, {a} or {b}?", "Which number is larger: {a} or {b}?")).format(a=a, b=b),
                f"I compare {a} and {b}.", f"{max(a, b)} is larger.")
    if kind == 6:
        items = rng.sample(w.FRUITS + w.COLORS, rng.randint(2, 5))
        return f"Make a list of: {', '.join(items)}.", "I write one item per line.", "\n".join(f"- {i}" for i in items)
    word = rng.choice(w.NOUNS + w.ANIMALS)
    return f"Write {word} in capital letters.", "I use capital letters.", word.upper()


def make_chat(rng, scored=False):
    thinking = rng.random() < 0.5
    messages, name = system(rng), None
    for turn in range(rng.choice((1, 1, 2, 3, 4, 5)) if not scored else rng.choice((1, 2, 3))):
        roll = rng.random()
        if name and roll < 0.25:
            question = rng.choice(("What is my name?", "Who am I?", "Do you remember my name?"))
            reasoning, reply = f"The user is {name}.", f"Your name is {name}."
        elif roll < 0.55:
            question, reasoning, reply = small_turn(rng)
        elif roll < 0.72:
            question, reasoning, reply = unknown_question(rng)
        else:
            question, reasoning, reply = list_turn(rng)
            if reply.startswith("Nice to meet you, "):
                name = reply[len("Nice to meet you, "):-1]
        messages += [user(question), assistant(reply, reasoning if thinking else None)]
    return Case("chat", messages, thinking, max_effort=thinking and rng.random() < 0.03)


def number_text(rng):
    return str(rng.randint(10, 9999))


def fact_name(rng):
    roll = rng.random()
    if roll < 0.7:
        return rng.choice(w.NAMES)
    if roll < 0.85:
        return w.made_up(rng).capitalize()
    return rng.choice(w.ADJECTIVES) + " " + rng.choice(w.NOUNS)


def facts_document(rng, fact_count, sentence_count, plain_names=False):
    """Prose with `fact_count` lines `name = number` spread over it; returns (text, {name: number})."""
    facts = {}
    while len(facts) < fact_count:
        facts.setdefault(rng.choice(w.NAMES) if plain_names else fact_name(rng), number_text(rng))
    pieces = [w.sentence(rng) for _ in range(sentence_count)]
    slots = sorted((rng.randrange(sentence_count + 1) for _ in facts), reverse=True)
    for slot, (name, number) in zip(slots, reversed(list(facts.items()))):
        pieces.insert(slot, f"{name} = {number}.")
    lines, at = [], 0
    while at < len(pieces):
        step = rng.randint(3, 8)
        lines.append(" ".join(pieces[at:at + step]))
        at += step
    return "\n".join(lines), facts


_FACT_FORMS = ["What is the number of {n}?", "What is {n}?", "Which number belongs to {n}?", "What number does {n} have?",
               "{n} = ?", "Tell me the number of {n}.", "Give me the value of {n}.", "What value has {n}?"]


def fact_turn(rng, facts, thinking, missing=0.0, name=None):
    if rng.random() < missing:
        name = fact_name(rng)
        while name in facts:
            name = fact_name(rng)
        return (user(rng.choice(_FACT_FORMS).replace("{n}", name)),
                assistant(f"The text gives no number for {name}.", f"I look for {name}. It is not there." if thinking else None))
    name = name or rng.choice(list(facts))
    return (user(rng.choice(_FACT_FORMS).replace("{n}", name)),
            assistant(f"{name} = {facts[name]}", f"I look for {name}. {name} = {facts[name]}." if thinking else None))


def make_recall(rng, sentences, fact_count=16, turns=None, plain_names=False, missing=0.03, kind="recall"):
    """A document with facts, then questions. With thinking on, only the last question carries reasoning."""
    thinking = rng.random() < 0.5
    text, facts = facts_document(rng, fact_count, sentences, plain_names)
    opening = rng.choice(("Read this text.\n\n{t}\n\n", "Here is a text with some facts.\n{t}\n", "{t}\n\n", "Text:\n{t}\n\n"))
    opening = opening.replace("{t}", text)
    messages = system(rng, 0.5)
    order = rng.sample(list(facts), len(facts))
    for turn in range(turns or rng.randint(4, 10)):
        question, answer = fact_turn(rng, facts, thinking, missing, order[turn % len(order)])
        if turn == 0:
            question = user(opening + question["content"])
        messages += [question, answer]
    return Case(kind, messages, thinking)


def make_recall_short(rng):
    facts = rng.randint(2, 16)
    return make_recall(rng, rng.randint(0, 30), facts)


def make_recall_mid(rng):
    return make_recall(rng, rng.randint(40, 105), 16 if rng.random() < 0.7 else rng.randint(4, 24), rng.randint(5, 12))


def make_recall_long(rng):
    return make_recall(rng, rng.randint(170, 500), 16 if rng.random() < 0.6 else rng.randint(8, 24), rng.randint(10, 20))


def make_copy(rng, sentences=None):
    """Remember a few lines, read prose, repeat one of them word for word."""
    thinking = rng.random() < 0.3
    labels = rng.sample("ABCDEFGH", rng.randint(1, 5))
    lines = {label: w.words_line(rng, rng.randint(3, 12)) for label in labels}
    body = [f"Line {label}: {line}" for label, line in lines.items()]
    for _ in range(rng.randint(0, 40) if sentences is None else sentences):
        body.insert(rng.randrange(len(body) + 1), w.sentence(rng))
    messages = system(rng, 0.4)
    for turn in range(rng.randint(1, 3)):
        label = rng.choice(labels)
        question = f"Repeat line {label}."
        if turn == 0:
            question = "\n".join(body) + "\n\n" + question
        messages += [user(question), assistant(lines[label], f"I repeat line {label}." if thinking else None)]
    return Case("copy", messages, thinking)


def make_recall_scored(rng, token_target, count_tokens):
    """16 facts over about `token_target` tokens of prose and one question; `count_tokens` measures text."""
    sentences = int(token_target / 16.5)
    while True:
        case = make_recall(rng, sentences, 16, 1, plain_names=True, missing=0.0, kind=f"recall_{token_target}")
        size = count_tokens(case.messages[-2]["content"])
        if 0.95 * token_target <= size <= 1.06 * token_target:
            break
        sentences = max(1, int(sentences * token_target / size))
    case.extra["answer"] = case.messages[-1]["content"].split(" = ")[1]
    return case
