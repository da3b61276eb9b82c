// A client of a controller: connect, watch and export.
import { SocketAddress } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import tls from 'node:tls';
import grpc from '@grpc/grpc-js';
import protoLoader from '@grpc/proto-loader';
import { uriOf } from './context.js';

const tree = fileURLToPath(new URL('../../../', import.meta.url));

const { synmesh } = grpc.loadPackageDefinition(protoLoader.loadSync('synmesh/v1/result.proto', {
  keepCase: true,
  longs: String, // 64 bits are more than a number holds
  enums: String,
  defaults: true, // what is not sent is 0, "" or null
  oneofs: true, // which tells whether a shift count is there
  includeDirs: [`${tree}proto`, `${tree}third_party/protovalidate`],
}));

// connect returns a ResultService. The certificate of a controller has no host's name, but
// the URI spiffe://FLEET/controller/NAME. So TLS verifies, as always, that it leads to a root
// of the fleet and is for servers, and controllerOf puts the check of the URI in the place
// of that of the host's name.
export function connect(context) {
  const secure = tls.createSecureContext({
    key: context.key, cert: context.certificates, ca: context.roots, minVersion: 'TLSv1.3',
  });
  const credentials = grpc.credentials.createFromSecureContext(secure, {
    checkServerIdentity: (_host, certificate) => notController(certificate, context.fleet),
  });
  return new synmesh.v1.ResultService(context.controller, credentials, {
    'grpc.ssl_target_name_override': 'controller.invalid', // an address is no name to send
    'grpc.default_authority': context.controller,
    'grpc.keepalive_time_ms': 20_000,
    'grpc.keepalive_timeout_ms': 10_000,
    'grpc.initial_reconnect_backoff_ms': 200,
    'grpc.max_reconnect_backoff_ms': 3_000,
  });
}

// notController returns why a certificate is not that of a controller of the fleet.
export function notController(certificate, fleet) {
  const uri = uriOf(certificate.subjectaltname);
  const [scheme, , theirs, kind, name, ...more] = uri?.split('/') ?? [];
  if (certificate.ca || scheme !== 'spiffe:' || theirs !== fleet || kind !== 'controller' || !name || more.length > 0) {
    return new Error(`the server is refused: it is ${certificate.subjectaltname}, and a controller of ${fleet} is wanted`);
  }
  return undefined;
}

// What another try does not help.
const final = new Set([
  grpc.status.INVALID_ARGUMENT, grpc.status.NOT_FOUND, grpc.status.ALREADY_EXISTS, grpc.status.PERMISSION_DENIED,
  grpc.status.FAILED_PRECONDITION, grpc.status.OUT_OF_RANGE, grpc.status.UNIMPLEMENTED, grpc.status.DATA_LOSS,
  grpc.status.UNAUTHENTICATED,
]);

const silence = 30_000; // a controller says something every 10 s

// follow yields the parts of a stream, and opens it again where it broke off, from the cursor of the
// last part that was taken. A part is taken when the next one is asked for.
async function* follow(open, { cursor = '', signal, ends, log = () => {} }) {
  for (let broken = 0; !signal?.aborted; ) {
    const call = open(cursor);
    const cancel = () => call.cancel();
    signal?.addEventListener('abort', cancel);
    let timer = setTimeout(cancel, silence);
    try {
      for await (const part of call) {
        clearTimeout(timer);
        broken = 0;
        yield part;
        cursor = part.cursor;
        timer = setTimeout(cancel, silence);
      }
      if (ends) return;
    } catch (err) {
      if (signal?.aborted) return;
      if (final.has(err.code)) throw err;
      log(`the stream broke off: ${err.details ?? err.message}`);
    } finally {
      clearTimeout(timer);
      signal?.removeEventListener('abort', cancel);
      call.cancel();
    }
    broken += 1;
    await sleep(Math.min(200 * 2 ** broken, 3_000) * (0.75 + Math.random() / 4), undefined, { signal }).catch(() => {});
  }
}

// watch yields {results, cursor, gap} as results are stored, until the signal.
export function watch(client, filter, options) {
  return follow((cursor) => client.Watch({ filter, cursor }), options);
}

// exported yields {results, cursor} of what was stored in some time. The times are Dates.
export function exported(client, filter, { start, end, ...options }) {
  const request = { filter, start_time: stamp(start), end_time: stamp(end) };
  return follow((cursor) => client.Export({ ...request, cursor }), { ...options, ends: true });
}

function stamp(date) {
  if (!date) return undefined;
  const ms = date.getTime();
  return { seconds: Math.floor(ms / 1000), nanos: (((ms % 1000) + 1000) % 1000) * 1e6 };
}

// seconds is a duration as a number of seconds.
const seconds = (d) => (d ? (Number(d.seconds) * 1e9 + d.nanos) / 1e9 : 0);

const word = (text, prefix) => text.slice(prefix.length).toLowerCase();

// instant is RFC 3339 with nanoseconds; a Date has only milliseconds.
function instant(t) {
  const whole = new Date(Number(t.seconds) * 1000).toISOString().slice(0, 19);
  return `${whole}.${String(t.nanos).padStart(9, '0')}Z`;
}

// address writes the 4 or 16 bytes of an IP address.
function address(bytes) {
  if (bytes.length === 4) return bytes.join('.');
  const groups = Array.from({ length: 8 }, (_, i) => bytes.readUInt16BE(2 * i).toString(16));
  return new SocketAddress({ address: groups.join(':'), family: 'ipv6' }).address;
}

function synAckOf(m) {
  const s = { seq: m.seq, window: m.window, sack_permitted: m.sack_permitted, timestamps: m.timestamps, ttl: m.ttl };
  if (m.mss) s.mss = m.mss;
  if (m._window_scale) s.window_scale = m.window_scale;
  if (m.ecn) s.ecn = true;
  return s;
}

function closeOf(m) {
  const c = { ending: word(m.ending, 'ENDING_') };
  if (seconds(m.ack)) c.ack_seconds = seconds(m.ack);
  if (seconds(m.fin)) c.fin_seconds = seconds(m.fin);
  return c;
}

// resultOf returns a message in the shape in which probectl prints results.
export function resultOf(m) {
  const r = {
    time: instant(m.time), agent: m.agent, source: m.source, target: m.target, remote: m.remote,
    local_port: m.local_port, outcome: word(m.outcome, 'OUTCOME_'), attempts: m.attempts, stamp: word(m.stamp, 'STAMP_'),
    lateness_seconds: seconds(m.lateness), host_delay_seconds: seconds(m.host_delay),
  };
  if (m.rtt) r.rtt_seconds = seconds(m.rtt);
  if (m.drops) r.drops = m.drops;
  if (m.syn_seq) r.syn = { seq: m.syn_seq };
  if (m.syn_ack) r.syn_ack = synAckOf(m.syn_ack);
  if (m.icmp) r.icmp = { type: m.icmp.type, code: m.icmp.code, from: address(m.icmp.from) };
  if (m.retry) {
    const lost = m.retry.lost === 'LOST_UNSPECIFIED' ? 'unknown' : word(m.retry.lost, 'LOST_');
    r.retry = { answered: m.retry.answered, lost, waited_seconds: seconds(m.retry.waited) };
  }
  if (m.close) r.close = closeOf(m.close);
  if (m.error) r.error = m.error;
  return r;
}
