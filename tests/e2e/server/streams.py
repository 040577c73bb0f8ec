"""Streaming clients by the dozen: what they got, and how long they waited between two pieces."""
import asyncio
import json
import time

BODIES = {
    "/v1/chat/completions": lambda text, tokens: {
        "messages": [{"role": "user", "content": text}], "stream": True, "max_tokens": tokens,
        "reasoning_effort": "none"},
    "/v1/completions": lambda text, tokens: {"prompt": text, "stream": True, "max_tokens": tokens},
    "/v1/messages": lambda text, tokens: {
        "messages": [{"role": "user", "content": text}], "stream": True, "max_tokens": tokens,
        "thinking": {"type": "disabled"}},
    "/v1/responses": lambda text, tokens: {
        "input": text, "stream": True, "max_output_tokens": tokens, "reasoning": {"effort": "none"}},
}
ENDS = {"/v1/chat/completions": b"[DONE]", "/v1/completions": b"[DONE]",
        "/v1/messages": b"message_stop", "/v1/responses": b'"usage"'}
PATHS = tuple(BODIES)


class Report:
    def __init__(self):
        self.answers = 0
        self.gaps = []  # seconds between two pieces of one answer
        self.firsts = []  # seconds to the first piece
        self.failures = []

    def text(self):
        gaps = sorted(self.gaps) or [0.0]
        firsts = sorted(self.firsts) or [0.0]
        share = lambda values, part: values[min(len(values) - 1, int(len(values) * part))] * 1000
        return (f"{self.answers} answers, {len(self.failures)} failures; gaps p50 {share(gaps, .5):.0f} "
                f"p99 {share(gaps, .99):.0f} max {gaps[-1] * 1000:.0f} ms; first piece p50 "
                f"{share(firsts, .5):.0f} p99 {share(firsts, .99):.0f} ms")


async def read_head(reader):
    head = await reader.readuntil(b"\r\n\r\n")
    return int(head.split(b" ", 2)[1])


async def ask(link, path, value, report):
    """One answer on a kept connection."""
    reader, writer = link
    data = json.dumps(value).encode()
    writer.write(f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                 f"Content-Length: {len(data)}\r\n\r\n".encode() + data)
    began = last = time.monotonic()
    code = await read_head(reader)
    if code != 200:
        raise AssertionError(f"{path}: {code}")
    whole = b""
    while size := int(await reader.readuntil(b"\r\n"), 16):
        piece = (await reader.readexactly(size + 2))[:-2]
        now = time.monotonic()
        # The head of a stream comes at once, what the model says later.
        if whole.count(b"\n\n") > 3:
            report.gaps.append(now - last)
        elif whole:
            report.firsts.append(now - began)
        last = now
        whole += piece
    await reader.readexactly(2)
    if ENDS[path] not in whole or b"event: error" in whole or b'"response.failed"' in whole:
        raise AssertionError(f"{path}: {whole[-300:]}")
    report.answers += 1


async def client(port, index, seconds, tokens, report):
    path = PATHS[index % len(PATHS)]
    end = time.monotonic() + seconds
    try:
        link = await asyncio.open_connection("127.0.0.1", port)
        turn = 0
        while turn == 0 or time.monotonic() < end:
            await ask(link, path, BODIES[path](f"client {index} turn {turn}", tokens), report)
            turn += 1
        link[1].close()
    except (AssertionError, OSError, asyncio.IncompleteReadError, ValueError) as error:
        report.failures.append(f"client {index}: {error!r}")


async def leaver(port, index, seconds, text):
    """Asks again and again, and leaves in the middle."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        path = PATHS[index % len(PATHS)]
        data = json.dumps(BODIES[path](f"{text} {time.monotonic()}", 1000)).encode()
        writer.write(f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                     f"Content-Length: {len(data)}\r\n\r\n".encode() + data)
        await asyncio.sleep(0.05 + 0.1 * (index % 4))
        writer.transport.abort()
        del reader


async def load_async(port, clients, seconds, tokens, leavers, leaver_text):
    report = Report()
    tasks = [client(port, i, seconds, tokens, report) for i in range(clients)]
    tasks += [leaver(port, i, seconds, leaver_text) for i in range(leavers)]
    await asyncio.gather(*tasks)
    return report


def load(port, clients=64, seconds=5.0, tokens=40, leavers=0, leaver_text=""):
    """`clients` streams at a time for that long, beside `leavers` that go away in the middle."""
    return asyncio.run(load_async(port, clients, seconds, tokens, leavers, leaver_text))
