// What can be told without a controller: npm test.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { notController, resultOf } from './client.js';

test('only a controller of the fleet is taken for one', () => {
  const names = (subjectaltname, ca = false) => notController({ subjectaltname, ca }, 'fleet-1');
  assert.equal(names('URI:spiffe://fleet-1/controller/ctl'), undefined);
  assert.equal(names('DNS:ctl, URI:spiffe://fleet-1/controller/ctl'), undefined);
  for (const wrong of [
    undefined, '', 'DNS:ctl', 'URI:spiffe://fleet-2/controller/ctl', 'URI:spiffe://fleet-1/agent/ctl',
    'URI:spiffe://fleet-1/controller', 'URI:spiffe://fleet-1/controller/', 'URI:spiffe://fleet-1/controller/a/b',
    'URI:https://fleet-1/controller/ctl', 'URI:spiffe://fleet-1/user/admin/ctl',
    'URI:spiffe://fleet-1/controller/ctl, URI:spiffe://fleet-1/agent/a', 'DNS:"ctl, URI:spiffe://fleet-1/controller/ctl"',
  ]) {
    assert.match(names(wrong).message, /a controller of fleet-1 is wanted/, String(wrong));
  }
  assert.match(names('URI:spiffe://fleet-1/controller/ctl', true).message, /the server is refused/);
});

const message = {
  time: { seconds: '1763665971', nanos: 5 }, agent: 'fra-1', source: 'measurements/mesh', target: 'db.fra:5432',
  remote: '10.0.0.2:5432', local_port: 61003, outcome: 'OUTCOME_OPEN', rtt: { seconds: '2', nanos: 925890498 },
  attempts: 1, stamp: 'STAMP_TCP_INFO', lateness: { seconds: '0', nanos: 81000 }, host_delay: null, drops: 0, syn_seq: 0,
  syn_ack: { seq: 0, window: 64240, mss: 0, window_scale: 0, _window_scale: 'window_scale', sack_permitted: true, timestamps: false, ttl: 64, ecn: false },
  icmp: null, retry: null, close: null, error: '',
};

test('a message becomes a result as probectl prints it', () => {
  assert.deepEqual(resultOf(message), {
    time: '2025-11-20T19:12:51.000000005Z', agent: 'fra-1', source: 'measurements/mesh', target: 'db.fra:5432',
    remote: '10.0.0.2:5432', local_port: 61003, outcome: 'open', attempts: 1, stamp: 'tcp_info',
    lateness_seconds: 0.000081, host_delay_seconds: 0, rtt_seconds: 2.925890498,
    syn_ack: { seq: 0, window: 64240, sack_permitted: true, timestamps: false, ttl: 64, window_scale: 0 },
  });
});

test('addresses are written as usual', () => {
  const from = (...bytes) => resultOf({ ...message, icmp: { type: 3, code: 13, from: Buffer.from(bytes) } }).icmp.from;
  assert.equal(from(10, 0, 9, 1), '10.0.9.1');
  assert.equal(from(0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1), '2001:db8::1');
});
