import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import OpenAI from 'openai';
import { block, startScripted } from './scripted.js';

let server;
let client;
const model = 'deepseek-v4-flash';
const weather = {
  type: 'function',
  function: {
    name: 'get_weather',
    parameters: {
      type: 'object',
      properties: { city: { type: 'string' }, days: { type: 'integer' } },
      required: ['city'],
    },
  },
};

before(async () => {
  server = await startScripted({
    per_run_us: 200,
    rules: [
      { trigger: 'greet', answer: 'A thought.</think>Hello there.' },
      { trigger: 'weather', answer: `Look it up.</think>Let me see.${block(['get_weather', { city: 'Oslo', days: 2 }])}` },
      { trigger: '<tool_result>', answer: 'Sunny.</think>It is sunny.' },
      { trigger: 'more', answer: 'Again.</think>More of it.' },
      { trigger: 'endless', answer: 'x'.repeat(100000) },
    ],
  });
  client = new OpenAI({ baseURL: `${server.url}/v1`, apiKey: 'none', maxRetries: 0 });
});
after(async () => assert.equal(await server.stop(), 0));

test('the model list', async () => {
  const models = await client.models.list();
  assert.equal(models.data[0].id, model);
  assert.equal((await client.models.retrieve(model)).id, model);
});

test('a chat, whole', async () => {
  const answer = await client.chat.completions.create({
    model,
    messages: [{ role: 'user', content: 'greet me' }],
  });
  assert.equal(answer.choices[0].message.content, 'Hello there.');
  assert.equal(answer.choices[0].message.reasoning_content, 'A thought.');
  assert.equal(answer.choices[0].finish_reason, 'stop');
  assert.equal(answer.usage.total_tokens, answer.usage.prompt_tokens + answer.usage.completion_tokens);
});

test('a chat, streamed, with usage', async () => {
  const stream = await client.chat.completions.create({
    model,
    stream: true,
    stream_options: { include_usage: true },
    messages: [{ role: 'user', content: 'greet me' }],
  });
  let text = '';
  let usage;
  for await (const chunk of stream) {
    text += chunk.choices[0]?.delta?.content ?? '';
    usage = chunk.usage ?? usage;
  }
  assert.equal(text, 'Hello there.');
  assert.ok(usage.prompt_tokens > 0);
});

test('a tool call and its result, streamed, reading only the new suffix', async () => {
  const messages = [{ role: 'user', content: 'the weather?' }];
  const stream = client.chat.completions.stream({ model, messages, tools: [weather] });
  const first = await stream.finalChatCompletion();
  const call = first.choices[0].message.tool_calls[0];
  assert.equal(first.choices[0].finish_reason, 'tool_calls');
  assert.deepEqual(JSON.parse(call.function.arguments), { city: 'Oslo', days: 2 });
  assert.ok(!JSON.stringify(first).includes('DSML'));
  messages.push(first.choices[0].message, { role: 'tool', tool_call_id: call.id, content: 'sun' });
  const second = await client.chat.completions.create({ model, messages, tools: [weather] });
  assert.equal(second.choices[0].message.content, 'It is sunny.');
  const { prompt_tokens: prompt, prompt_tokens_details: details } = second.usage;
  assert.ok(prompt - details.cached_tokens < 80, `${prompt} ${details.cached_tokens}`);
});

for (const think of [true, false]) {
  for (const tools of [[], [weather]]) {
    test(`turn 2 reads the new suffix alone: think ${think}, ${tools.length} tools`, async () => {
      const options = { model, reasoning_effort: think ? 'high' : 'none', ...(tools.length && { tools }) };
      const messages = [{ role: 'user', content: `greet me ${think} ${tools.length}` }];
      const first = await client.chat.completions.create({ ...options, messages });
      // What clients send back: the content alone.
      messages.push({ role: 'assistant', content: first.choices[0].message.content });
      messages.push({ role: 'user', content: 'more' });
      const second = await client.chat.completions.create({ ...options, messages });
      const { prompt_tokens: prompt, prompt_tokens_details: details } = second.usage;
      assert.ok(prompt - details.cached_tokens < 20, `${prompt} ${details.cached_tokens}`);
    });
  }
}

test('a cut answer says length', async () => {
  const answer = await client.chat.completions.create({
    model,
    max_tokens: 20,
    reasoning_effort: 'none',
    messages: [{ role: 'user', content: 'endless' }],
  });
  assert.equal(answer.choices[0].finish_reason, 'length');
  assert.equal(answer.choices[0].message.content, 'x'.repeat(20));
  assert.equal(answer.usage.completion_tokens, 20);
});

test('errors have their classes', async () => {
  const ask = (more) =>
    client.chat.completions.create({ model, messages: [{ role: 'user', content: 'x' }], ...more });
  await assert.rejects(ask({ n: 2 }), OpenAI.BadRequestError);
  await assert.rejects(ask({ frequency_penalty: 1 }), OpenAI.BadRequestError);
  await assert.rejects(ask({ messages: [{ role: 'user', content: 'y'.repeat(70000) }] }), (error) => {
    assert.equal(error.code, 'context_length_exceeded');
    assert.equal(error.error.n_ctx, 65536);
    return true;
  });
  await assert.rejects(client.models.retrieve('other'), OpenAI.NotFoundError);
});

test('a client that leaves frees the engine', async () => {
  const stream = await client.chat.completions.create({
    model,
    stream: true,
    reasoning_effort: 'none',
    messages: [{ role: 'user', content: 'endless' }],
  });
  for await (const chunk of stream) if (chunk.choices[0].delta.content) break;
  stream.controller.abort();
  for (let i = 0; i < 50; ++i) {
    const health = await (await fetch(`${server.url}/health`)).json();
    if (health.active === 0) return;
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  assert.fail('the answer went on');
});

test('a request that times out is the client\'s error', async () => {
  await assert.rejects(
    client.chat.completions.create(
      { model, reasoning_effort: 'none', messages: [{ role: 'user', content: 'endless' }] },
      { timeout: 100 },
    ),
    OpenAI.APIConnectionTimeoutError,
  );
});

test('legacy completions', async () => {
  const answer = await client.completions.create({ model, prompt: 'greet me' });
  assert.equal(answer.choices[0].text, 'Hello there.');
});

const flat = { type: 'function', name: 'get_weather', parameters: weather.function.parameters };

test('responses, whole and streamed', async () => {
  const whole = await client.responses.create({ model, input: 'greet me' });
  assert.equal(whole.output_text, 'Hello there.');
  assert.equal(whole.status, 'completed');
  const stream = await client.responses.create({
    model,
    input: 'greet me',
    stream: true,
    reasoning: { summary: 'auto' },
  });
  const types = [];
  let number = -1;
  for await (const event of stream) {
    types.push(event.type);
    assert.equal(event.sequence_number, ++number);
  }
  assert.equal(types[0], 'response.created');
  assert.equal(types.at(-1), 'response.completed');
  assert.ok(types.includes('response.reasoning_summary_text.delta'));
});

test('responses with a tool call and its output', async () => {
  const input = [{ role: 'user', content: 'the weather?' }];
  const first = await client.responses.create({ model, input, tools: [flat] });
  const call = first.output.find((item) => item.type === 'function_call');
  assert.deepEqual(JSON.parse(call.arguments), { city: 'Oslo', days: 2 });
  input.push(...first.output, { type: 'function_call_output', call_id: call.call_id, output: 'sun' });
  const second = await client.responses.create({ model, input, tools: [flat] });
  assert.equal(second.output_text, 'It is sunny.');
  const { input_tokens: prompt, input_tokens_details: details } = second.usage;
  assert.ok(prompt - details.cached_tokens < 80, `${prompt} ${details.cached_tokens}`);
});
