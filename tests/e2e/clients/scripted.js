// Starts a server for the tests and ends it after them: the scripted one (DS4_SCRIPTED_SERVER) with
// given rules, or ds4-server itself (DS4_SERVER_BINARY) on the small model that comes along.
import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';

// `portOf(line)` is the port when that line of the program's output tells it.
async function start(program, args, { folder, says, portOf, environment = {} }) {
  const child = spawn(program, args, {
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { ...process.env, ...environment },
  });
  if (process.env.DS4_VERBOSE) child.stderr.pipe(process.stderr);
  child.stderr.resume();
  const port = await new Promise((resolve, reject) => {
    createInterface({ input: child[says] }).on('line', (line) => {
      const found = portOf(line);
      if (found) resolve(Number(found));
    });
    child.once('exit', (code) => reject(new Error(`the server ended with ${code}`)));
  });
  return {
    url: `http://127.0.0.1:${port}`,
    port,
    stop: () =>
      new Promise((resolve) => {
        child.once('exit', (code) => {
          rmSync(folder, { recursive: true });
          resolve(code);
        });
        child.kill('SIGTERM');
      }),
  };
}

export async function startScripted(rules) {
  const folder = mkdtempSync(join(tmpdir(), 'ds4-clients-'));
  const file = join(folder, 'rules.json');
  writeFileSync(file, JSON.stringify(rules));
  return start(process.env.DS4_SCRIPTED_SERVER, [file], {
    folder,
    says: 'stdout',
    portOf: (line) => line.match(/^listening (\d+)/)?.[1],
  });
}

export async function startReal(args = []) {
  const folder = mkdtempSync(join(tmpdir(), 'ds4-clients-'));
  return start(process.env.DS4_SERVER_BINARY, ['-m', process.env.DS4_TINY_MODEL, '--port', '0', ...args], {
    folder,
    says: 'stderr',
    portOf: (line) => line.match(/ on http:\/\/[^ ]*:(\d+)/)?.[1],
    environment: { DS4_LOCK_FILE: join(folder, 'lock') },
  });
}

// A block of calls as the model writes it: [[name, {parameter: text}], ...].
export function block(...calls) {
  const invokes = calls.map(([name, parameters]) => {
    const lines = Object.entries(parameters).map(
      ([key, value]) =>
        `<｜DSML｜parameter name="${key}" string="${typeof value === 'string'}">` +
        `${typeof value === 'string' ? value : JSON.stringify(value)}</｜DSML｜parameter>\n`,
    );
    return `<｜DSML｜invoke name="${name}">\n${lines.join('')}</｜DSML｜invoke>\n`;
  });
  return `\n\n<｜DSML｜tool_calls>\n${invokes.join('')}</｜DSML｜tool_calls>`;
}
