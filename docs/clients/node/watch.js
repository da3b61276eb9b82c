// Prints results as they are stored, as JSON lines:
//
//   node watch.js CONTEXT [--source measurements/NAME] [--agents SELECTOR] [--cursor-file FILE]
//
// The file is written after the results are: begin with it again, and nothing is missed.
import { existsSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { readContext } from './context.js';
import { connect, resultOf, watch } from './client.js';

const { values: flags, positionals } = parseArgs({
  allowPositionals: true,
  options: { source: { type: 'string' }, agents: { type: 'string' }, 'cursor-file': { type: 'string' } },
});
if (positionals.length !== 1) {
  console.error('one context file is wanted, as in node watch.js ./alice.yaml');
  process.exit(2);
}
const file = flags['cursor-file'];
const cursor = file && existsSync(file) ? readFileSync(file, 'utf8').trim() : '';

const stop = new AbortController();
process.once('SIGINT', () => stop.abort());
process.once('SIGTERM', () => stop.abort());

// print returns when the text is written.
function print(text) {
  return new Promise((done, fail) => {
    process.stdout.write(text, (err) => (err ? fail(err) : done()));
  });
}

const client = connect(readContext(positionals[0]));
const filter = { source: flags.source, agents: flags.agents };
for await (const part of watch(client, filter, { cursor, signal: stop.signal, log: console.error })) {
  if (part.gap) console.error('results may be missing here');
  await print(part.results.map((m) => `${JSON.stringify(resultOf(m))}\n`).join(''));
  if (file) {
    writeFileSync(`${file}.tmp`, `${part.cursor}\n`, { flush: true });
    renameSync(`${file}.tmp`, file);
  }
}
client.close();
