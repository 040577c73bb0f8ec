import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import Anthropic from '@anthropic-ai/sdk';
import { block, startScripted } from './scripted.js';

let server;
let client;
const model = 'claude-whatever';
const weather = {
  name: 'get_weather',
  input_schema: { type: 'object', properties: { city: { type: 'string' } }, required: ['city'] },
};

before(async () => {
  server = await startScripted({
    rules: [
      { trigger: 'greet', answer: 'A thought.</think>Hello there.' },
      { trigger: 'weather', answer: `Look it up.</think>Let me see.${block(['get_weather', { city: 'Oslo' }])}` },
      { trigger: '<tool_result>', answer: 'Sunny.</think>It is sunny.' },
      { trigger: 'count', answer: '</think>one two three four' },
    ],
  });
  client = new Anthropic({ baseURL: server.url, apiKey: 'none', maxRetries: 0 });
});
after(async () => assert.equal(await server.stop(), 0));

const ask = (more) => ({ model, max_tokens: 1000, messages: [{ role: 'user', content: 'greet me' }], ...more });

test('a message, whole', async () => {
  const answer = await client.messages.create(ask());
  assert.deepEqual(answer.content.map((part) => part.type), ['thinking', 'text']);
  assert.equal(answer.content[1].text, 'Hello there.');
  assert.equal(answer.stop_reason, 'end_turn');
  assert.equal(answer.model, model);
});

test('a message, streamed', async () => {
  const stream = client.messages.stream(ask());
  const types = [];
  stream.on('streamEvent', (event) => types.push(event.type));
  const answer = await stream.finalMessage();
  assert.equal(answer.content[1].text, 'Hello there.');
  assert.equal(answer.content[0].thinking, 'A thought.');
  assert.ok(answer.content[0].signature.length > 0);
  assert.equal(types[0], 'message_start');
  assert.equal(types.at(-1), 'message_stop');
});

test('thinking off', async () => {
  const answer = await client.messages.create(ask({ thinking: { type: 'disabled' } }));
  assert.equal(answer.content[0].type, 'text');
});

test('a tool call and its result read only the new suffix', async () => {
  const messages = [{ role: 'user', content: 'the weather?' }];
  const first = await client.messages.stream(ask({ messages, tools: [weather] })).finalMessage();
  const call = first.content.at(-1);
  assert.equal(first.stop_reason, 'tool_use');
  assert.deepEqual(call.input, { city: 'Oslo' });
  messages.push({ role: 'assistant', content: first.content });
  messages.push({
    role: 'user',
    content: [{ type: 'tool_result', tool_use_id: call.id, content: 'sun' }],
  });
  const second = await client.messages.create(ask({ messages, tools: [weather] }));
  assert.equal(second.content.at(-1).text, 'It is sunny.');
  assert.ok(second.usage.input_tokens < 80, JSON.stringify(second.usage));
});

test('stop sequences and limits', async () => {
  const messages = [{ role: 'user', content: 'count' }];
  const stopped = await client.messages.create(ask({ messages, stop_sequences: ['three'] }));
  assert.equal(stopped.stop_reason, 'stop_sequence');
  assert.equal(stopped.stop_sequence, 'three');
  assert.equal(stopped.content.at(-1).text, 'one two ');
  const cut = await client.messages.create(
    ask({ messages: [{ role: 'user', content: 'greet me' }], max_tokens: 3, thinking: { type: 'disabled' } }),
  );
  assert.equal(cut.stop_reason, 'max_tokens');
});

test('counting tokens agrees with the usage', async () => {
  const messages = [{ role: 'user', content: 'greet me, count' }];
  const counted = await client.messages.countTokens({ model, messages });
  const { usage } = await client.messages.create(ask({ messages }));
  assert.equal(
    counted.input_tokens,
    usage.input_tokens + usage.cache_read_input_tokens + usage.cache_creation_input_tokens,
  );
});

test('errors have their classes', async () => {
  await assert.rejects(client.messages.create(ask({ top_logprobs: 3 })), Anthropic.BadRequestError);
  await assert.rejects(
    client.messages.create(ask({ messages: [{ role: 'user', content: 'y'.repeat(70000) }] })),
    (error) => {
      assert.equal(error.error.error.type, 'invalid_request_error');
      assert.equal(error.error.error.n_ctx, 65536);
      return true;
    },
  );
  await assert.rejects(
    client.messages.create(
      ask({
        messages: [
          {
            role: 'user',
            content: [{ type: 'image', source: { type: 'base64', media_type: 'image/png', data: 'aGk=' } }],
          },
        ],
      }),
    ),
    /text alone/,
  );
});
