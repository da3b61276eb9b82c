// Compares what a client has watched with what is stored, and with that as Parquet:
//
//   node compare.js WATCHED.jsonl STORED.jsonl STORED.parquet
//
// It exits with 1 unless each result that is stored was watched once, and no other.
import { readFileSync } from 'node:fs';
import { asyncBufferFromFile, parquetReadObjects } from 'hyparquet';
import { compressors } from 'hyparquet-compressors';

const [watched, stored] = process.argv.slice(2, 4).map(readLines);
const problems = [];

function readLines(name) {
  const text = readFileSync(name, 'utf8');
  if (text && !text.endsWith('\n')) throw new Error(`${name} ends in the middle of a line`);
  return text.split('\n').slice(0, -1).map((line) => JSON.parse(line));
}

// asStored is a result as the archive keeps it: all but the round trip in microseconds. What is watched
// is newer than that, and has nanoseconds.
function asStored(result) {
  return Object.fromEntries(Object.entries(result).map(([name, value]) => {
    if (name === 'time') return [name, value.slice(0, '2026-11-20T19:12:51.369785'.length)];
    if (name === 'rtt_seconds' || !name.endsWith('_seconds')) return [name, value];
    return [name, Math.trunc(Math.round(value * 1e9) / 1e3)];
  }));
}

// canonical writes a value with its fields in order, so that equal ones are equal texts.
function canonical(value) {
  if (value === null || typeof value !== 'object') return JSON.stringify(value);
  const fields = Object.keys(value).sort().map((name) => `${JSON.stringify(name)}:${canonical(value[name])}`);
  return `{${fields.join()}}`;
}

function counted(results) {
  const counts = new Map();
  for (const r of results) {
    const text = canonical(asStored(r));
    counts.set(text, (counts.get(text) ?? 0) + 1);
  }
  return counts;
}

function expectNone(what, results) {
  console.log(`${what}: ${results.length}`);
  if (results.length > 0) problems.push(`${what}, such as ${results[0]}`);
}

const [ours, theirs] = [counted(watched), counted(stored)];
console.log(`watched: ${watched.length}\nstored: ${stored.length}`);
if (stored.length === 0) problems.push('nothing is stored');
expectNone('stored twice', [...theirs].filter(([, n]) => n > 1).map(([text]) => text));
expectNone('watched twice', [...ours].filter(([, n]) => n > 1).map(([text]) => text));
expectNone('stored and not watched', [...theirs.keys()].filter((text) => !ours.has(text)));
expectNone('watched and not stored', [...ours.keys()].filter((text) => !theirs.has(text)));

// The columns that each result has, as another program reads them.
const columns = ['agent', 'source', 'target', 'remote', 'local_port', 'outcome', 'rtt_seconds', 'attempts', 'stamp',
  'lateness_seconds', 'host_delay_seconds'];
const rows = await parquetReadObjects({
  file: await asyncBufferFromFile(process.argv[4]),
  compressors,
  parsers: { timestampFromNanoseconds: (nanoseconds) => nanoseconds },
});
const flat = (time, r) => canonical({ time, ...Object.fromEntries(columns.map((c) => [c, plain(r[c])])) });
const plain = (value) => (typeof value === 'bigint' ? Number(value) : value ?? null);
const nanoseconds = (text) => BigInt(Date.parse(`${text.slice(0, 19)}Z`)) * 1_000_000n + BigInt(text.slice(20, 29));
console.log(`rows of Parquet: ${rows.length}`);
if (rows.length !== stored.length) problems.push(`${rows.length} rows of Parquet, and ${stored.length} results`);
expectNone('rows of Parquet that differ', rows.filter((row, i) => stored[i] &&
  flat(String(row.time), row) !== flat(String(nanoseconds(stored[i].time)), stored[i])).map((row) => flat(String(row.time), row)));

if (problems.length === 0) console.log('every result exactly once');
for (const p of problems) console.error(p);
process.exit(problems.length > 0 ? 1 : 0);
