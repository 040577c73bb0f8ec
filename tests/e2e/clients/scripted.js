// Starts ds4_scripted_server (DS4_SCRIPTED_SERVER) with given rules and ends it after the tests.
import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';

export async function startScripted(rules) {
  const folder = mkdtempSync(join(tmpdir(), 'ds4-clients-'));
  const file = join(folder, 'rules.json');
  writeFileSync(file, JSON.stringify(rules));
  const child = spawn(process.env.DS4_SCRIPTED_SERVER, [file], {
    stdio: ['ignore', 'pipe', process.env.DS4_VERBOSE ? 'inherit' : 'ignore'],
  });
  const lines = createInterface({ input: child.stdout });
  const port = await new Promise((resolve, reject) => {
    lines.once('line', (line) => resolve(Number(line.split(' ')[1])));
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
