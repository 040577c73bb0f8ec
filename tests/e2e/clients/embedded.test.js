// The client libraries against ds4-server itself, on the small model that comes with the project and
// that really answers: it adds, recalls and calls tools (docs/ds4-tiny.md).
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import Anthropic from '@anthropic-ai/sdk';
import OpenAI from 'openai';
import { startReal } from './scripted.js';

const model = 'deepseek-v4-flash';
const question = 'What is 47 + 85?';
const request = 'Get the weather with city = Oslo and days = 2.';
const result = '{"status": "ok"}';
const parameters = {
  type: 'object',
  properties: { city: { type: 'string' }, days: { type: 'integer' } },
  required: ['city'],
};
const description = 'Get the weather.';
const chatTool = { type: 'function', function: { name: 'get_weather', description, parameters } };
const flatTool = { type: 'function', name: 'get_weather', description, parameters };
const anthropicTool = { name: 'get_weather', description, input_schema: parameters };

let server;
let openai;
let anthropic;

before(async () => {
  server = await startReal(['--ctx', '2048', '--sessions', '4', '--tokens', '300']);
  openai = new OpenAI({ baseURL: `${server.url}/v1`, apiKey: 'none', maxRetries: 0 });
  anthropic = new Anthropic({ baseURL: server.url, apiKey: 'none', maxRetries: 0 });
});
after(async () => assert.equal(await server.stop(), 0));

const newTokens = (usage) => usage.prompt_tokens - usage.prompt_tokens_details.cached_tokens;

test('chat, streamed: a sum with its reasoning', async () => {
  const stream = await openai.chat.completions.create({
    model,
    temperature: 0,
    stream: true,
    stream_options: { include_usage: true },
    messages: [{ role: 'user', content: question }],
  });
  let text = '';
  let reasoning = '';
  let usage;
  let pieces = 0;
  for await (const chunk of stream) {
    text += chunk.choices[0]?.delta?.content ?? '';
    reasoning += chunk.choices[0]?.delta?.reasoning_content ?? '';
    usage = chunk.usage ?? usage;
    ++pieces;
  }
  assert.match(text, /132/);
  assert.match(reasoning, /12/);
  assert.ok(pieces > 10);
  assert.ok(usage.completion_tokens_details.reasoning_tokens > 10);
});

test('chat: a tool, its result, and only the new suffix read', async () => {
  const options = { model, temperature: 0, tools: [chatTool] };
  const messages = [{ role: 'user', content: request }];
  const first = await openai.chat.completions.stream({ ...options, messages }).finalChatCompletion();
  const call = first.choices[0].message.tool_calls[0];
  assert.equal(first.choices[0].finish_reason, 'tool_calls');
  assert.deepEqual(JSON.parse(call.function.arguments), { city: 'Oslo', days: 2 });
  messages.push(first.choices[0].message, { role: 'tool', tool_call_id: call.id, content: result });
  const second = await openai.chat.completions.create({ ...options, messages });
  assert.match(second.choices[0].message.content, /get_weather succeeded/);
  assert.ok(newTokens(second.usage) < 40, JSON.stringify(second.usage));
});

test('responses: a tool and its result, streamed', async () => {
  const options = { model, temperature: 0, tools: [flatTool] };
  const input = [{ role: 'user', content: request }];
  const events = [];
  let first;
  for await (const event of await openai.responses.create({ ...options, input, stream: true })) {
    events.push(event.type);
    if (event.type === 'response.completed') first = event.response;
  }
  assert.equal(events[0], 'response.created');
  assert.ok(events.includes('response.function_call_arguments.done'));
  const call = first.output.find((item) => item.type === 'function_call');
  assert.deepEqual(JSON.parse(call.arguments), { city: 'Oslo', days: 2 });
  input.push(...first.output, { type: 'function_call_output', call_id: call.call_id, output: result });
  const second = await openai.responses.create({ ...options, input });
  assert.match(second.output_text, /get_weather succeeded/);
  const { input_tokens: prompt, input_tokens_details: details } = second.usage;
  assert.ok(prompt - details.cached_tokens < 40, JSON.stringify(second.usage));
});

test('messages: a tool and its result, streamed', async () => {
  const options = { model, max_tokens: 300, temperature: 0, tools: [anthropicTool] };
  const messages = [{ role: 'user', content: request }];
  const first = await anthropic.messages.stream({ ...options, messages }).finalMessage();
  const call = first.content.at(-1);
  assert.equal(first.stop_reason, 'tool_use');
  assert.deepEqual(call.input, { city: 'Oslo', days: 2 });
  messages.push(
    { role: 'assistant', content: first.content },
    { role: 'user', content: [{ type: 'tool_result', tool_use_id: call.id, content: result }] },
  );
  const second = await anthropic.messages.create({ ...options, messages });
  assert.match(second.content.at(-1).text, /get_weather succeeded/);
  assert.ok(second.usage.input_tokens < 40, JSON.stringify(second.usage));
});

test('messages: the count is what the answer is charged', async () => {
  const messages = [{ role: 'user', content: 'Count me.' }];
  const counted = await anthropic.messages.countTokens({ model, messages });
  const { usage } = await anthropic.messages.create({ model, messages, max_tokens: 5 });
  const charged = usage.input_tokens + usage.cache_read_input_tokens + usage.cache_creation_input_tokens;
  assert.equal(counted.input_tokens, charged);
});

test('errors have their classes in both libraries', async () => {
  const long = [{ role: 'user', content: 'stone '.repeat(4000) }];
  await assert.rejects(openai.chat.completions.create({ model, messages: long }), (error) => {
    assert.ok(error instanceof OpenAI.BadRequestError);
    assert.equal(error.code, 'context_length_exceeded');
    assert.equal(error.error.n_ctx, 2048);
    return true;
  });
  await assert.rejects(anthropic.messages.create({ model, max_tokens: 5, messages: long }), (error) => {
    assert.ok(error instanceof Anthropic.BadRequestError);
    assert.equal(error.error.error.n_ctx, 2048);
    return true;
  });
  await assert.rejects(openai.responses.create({ model, input: 'x', background: true }), OpenAI.BadRequestError);
  await assert.rejects(openai.models.retrieve('other'), OpenAI.NotFoundError);
});

test('a client that times out or leaves frees its slot', async () => {
  const ask = { model, messages: [{ role: 'user', content: question }], max_tokens: 300 };
  await assert.rejects(
    openai.chat.completions.create(ask, { timeout: 20 }),
    OpenAI.APIConnectionTimeoutError,
  );
  const stream = await anthropic.messages.create({ ...ask, stream: true });
  for await (const event of stream) if (event.type === 'content_block_delta') break;
  stream.controller.abort();
  for (let i = 0; i < 500; ++i) {
    const { active, queued } = await (await fetch(`${server.url}/health`)).json();
    if (active === 0 && queued === 0) return;
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  assert.fail('an answer went on');
});
