// Coding agents as their users run them, each through a task of two turns with a tool call in each.
// The scripted model stands in for one that can follow their long prompts: what is tested is that
// the server's protocols carry the agent through, and that its second turn reads only what is new.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { block, startScripted } from '../scripted.js';

const bin = join(dirname(fileURLToPath(import.meta.url)), 'node_modules', '.bin');
const model = 'deepseek-v4-flash';
const turnMilliseconds = 180000;

// What the model says: a call, words once its result is there, and both again for the second turn.
// The results are not in the calls' text, so that nothing but the agent's running them makes them.
function rulesFor(shell) {
  const call = (command) =>
    block([shell.tool, { [shell.parameter]: shell.takesList ? [command] : command, ...shell.more }]);
  return [
    { trigger: 'Task alpha', answer: `A file.</think>I write it.${call('echo first-$((6*7)) | tee answer.txt')}` },
    { trigger: 'first-42', answer: 'There.</think>The file is written.' },
    { trigger: 'Task beta', answer: `A look.</think>I read it.${call('cat answer.txt && echo second-$((8*9))')}` },
    { trigger: 'second-72', answer: 'I see.</think>It holds forty-two.' },
    { trigger: 'title generator', answer: '</think>A file with a number' },
  ];
}

function run(program, args, options) {
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, { ...options, stdio: ['ignore', 'pipe', 'pipe'] });
    const timer = setTimeout(() => child.kill('SIGKILL'), turnMilliseconds);
    let out = '';
    let notes = '';
    child.stdout.on('data', (data) => (out += data));
    child.stderr.on('data', (data) => (notes += data));
    child.once('error', reject);
    child.once('exit', (code) => {
      clearTimeout(timer);
      if (code === 0) return resolve(out + notes);
      reject(new Error(`${program} ${args.join(' ')} ended with ${code}\n${out}\n${notes}`));
    });
  });
}

// Some agents leave a program running that serves the next one: those of this home are ended.
function endLeftovers(home) {
  for (const entry of readdirSync('/proc').filter((name) => /^\d+$/.test(name))) {
    try {
      const variables = readFileSync(`/proc/${entry}/environ`, 'utf8').split('\0');
      if (variables.includes(`HOME=${home}`)) process.kill(Number(entry), 'SIGKILL');
    } catch {
      // Of another user, or gone already.
    }
  }
}

async function metric(server, name) {
  const text = await (await fetch(`${server.url}/metrics`)).text();
  const line = text.split('\n').find((candidate) => candidate.startsWith(`${name} `));
  return line === undefined ? 0 : Number(line.split(' ')[1]);
}

// `prepare(home, folder, url, call)` writes the agent's settings, `turn(text, isFirst)` gives program,
// arguments and what else its environment needs; `call(program, args)` runs one before that.
async function twoTurns(shell, prepare, turn) {
  const server = await startScripted({ rules: rulesFor(shell), context: 400000, slots: 3 });
  const root = mkdtempSync(join(tmpdir(), 'ds4-agent-'));
  const home = join(root, 'home');
  const folder = join(root, 'project');
  mkdirSync(home);
  mkdirSync(folder);
  const environment = {
    PATH: process.env.PATH,
    HOME: home,
    XDG_CONFIG_HOME: join(home, '.config'),
    XDG_DATA_HOME: join(home, '.local', 'share'),
    XDG_CACHE_HOME: join(home, '.cache'),
    XDG_STATE_HOME: join(home, '.local', 'state'),
  };
  const call = (program, args, more = {}) =>
    run(join(bin, program), args, { cwd: folder, env: { ...environment, ...more } });
  const take = async (text, isFirst) => call(...turn(text, isFirst));
  try {
    await prepare(home, folder, `${server.url}/v1`, call);
    const first = await take('Task alpha: write the product of six and seven to answer.txt.', true);
    assert.match(first, /The file is written\./);
    assert.equal(readFileSync(join(folder, 'answer.txt'), 'utf8'), 'first-42\n');
    const read = await metric(server, 'ds4_tokens_total{phase="prefill"}');
    const reused = await metric(server, 'ds4_tokens_total{phase="reused"}');
    const second = await take('Task beta: what does it say?', false);
    assert.match(second, /It holds forty-two\./);
    assert.doesNotMatch(first + second, /DSML/);
    const newlyRead = (await metric(server, 'ds4_tokens_total{phase="prefill"}')) - read;
    const newlyReused = (await metric(server, 'ds4_tokens_total{phase="reused"}')) - reused;
    console.log(`${shell.name}: turn 2 read ${newlyRead} tokens and reused ${newlyReused}`);
    assert.ok(newlyReused > 10 * newlyRead, `read ${newlyRead}, reused ${newlyReused}`);
    assert.equal(await metric(server, 'ds4_tool_calls_malformed_total'), 0);
  } finally {
    endLeftovers(home);
    const code = await server.stop();
    rmSync(root, { recursive: true, force: true, maxRetries: 10 });
    assert.equal(code, 0);
  }
}

test('Codex CLI, the Responses protocol', async () => {
  await twoTurns(
    { name: 'codex', tool: 'exec_command', parameter: 'cmd' },
    (home, folder, url) => {
      mkdirSync(join(home, '.codex'));
      writeFileSync(
        join(home, '.codex', 'config.toml'),
        `model = "${model}"\nmodel_provider = "ds4"\n\n[model_providers.ds4]\nname = "ds4"\n` +
          `base_url = "${url}"\nwire_api = "responses"\nstream_idle_timeout_ms = 3000000\n`,
      );
    },
    (text, isFirst) => [
      'codex',
      ['exec', ...(isFirst ? [] : ['resume', '--last']), '--skip-git-repo-check', '-c', 'sandbox_mode="danger-full-access"', text],
    ],
  );
});

test('opencode, the chat protocol', async () => {
  await twoTurns(
    { name: 'opencode', tool: 'bash', parameter: 'command', more: { description: 'Runs the task' } },
    (home, folder, url) => {
      writeFileSync(
        join(folder, 'opencode.json'),
        JSON.stringify({
          autoupdate: false,
          share: 'disabled',
          model: `ds4/${model}`,
          provider: {
            ds4: {
              npm: '@ai-sdk/openai-compatible',
              options: { baseURL: url, apiKey: 'none' },
              models: { [model]: { limit: { context: 131072, output: 32768 } } },
            },
          },
        }),
      );
    },
    (text, isFirst) => [
      'opencode',
      ['run', ...(isFirst ? [] : ['--continue']), text],
      { OPENCODE_DISABLE_AUTOUPDATE: '1', OPENCODE_DISABLE_MODELS_FETCH: '1' },
    ],
  );
});

test('Pi, the chat protocol', async () => {
  await twoTurns(
    { name: 'pi', tool: 'bash', parameter: 'command' },
    (home, folder, url) => {
      mkdirSync(join(home, '.pi', 'agent'), { recursive: true });
      writeFileSync(
        join(home, '.pi', 'agent', 'models.json'),
        JSON.stringify({
          providers: {
            ds4: {
              baseUrl: url,
              api: 'openai-completions',
              apiKey: 'none',
              models: [
                {
                  id: model,
                  reasoning: true,
                  input: ['text'],
                  contextWindow: 131072,
                  maxTokens: 32768,
                  cost: { input: 0, output: 0, cacheRead: 0, cacheWrite: 0 },
                  compat: { thinkingFormat: 'deepseek', requiresReasoningContentOnAssistantMessages: true },
                },
              ],
            },
          },
        }),
      );
    },
    (text, isFirst) => [
      'pi',
      ['--provider', 'ds4', '--model', model, ...(isFirst ? [] : ['--continue']), '-p', text],
      { PI_OFFLINE: '1', PI_TELEMETRY: '0' },
    ],
  );
});

test('Claude Code, the Messages protocol', async () => {
  let url;
  await twoTurns(
    { name: 'claude', tool: 'Bash', parameter: 'command', more: { description: 'Runs the task' } },
    (home, folder, base) => {
      url = base.replace('/v1', '');
    },
    (text, isFirst) => [
      'claude',
      ['-p', ...(isFirst ? [] : ['--continue']), '--dangerously-skip-permissions', text],
      {
        ANTHROPIC_BASE_URL: url,
        ANTHROPIC_AUTH_TOKEN: 'none',
        ANTHROPIC_MODEL: model,
        ANTHROPIC_DEFAULT_HAIKU_MODEL: model,
        CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC: '1',
        IS_SANDBOX: '1',
      },
    ],
  );
});

// Its conversations resume in a terminal alone: the second turn is a task of its own, of which the
// server has all but the question.
test('Cline, the chat protocol', async () => {
  await twoTurns(
    { name: 'cline', tool: 'run_commands', parameter: 'commands', takesList: true },
    (home, folder, url, call) =>
      call('cline', ['auth', '-p', 'openai', '-k', 'none', '-m', model, '-b', url]),
    (text) => ['cline', ['-P', 'openai', '-m', model, text]],
  );
});
