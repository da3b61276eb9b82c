// Who we are and whom to ask: the context files of probectl.
import { readFileSync, statSync } from 'node:fs';
import { dirname, resolve } from 'node:path';
import { X509Certificate } from 'node:crypto';
import { parse } from 'yaml';

// readContext returns the controller's address, our key and certificates in PEM,
// the roots of the fleet, and the fleet's name.
export function readContext(path) {
  const file = parse(readFileSync(path, 'utf8')) ?? {};
  const context = { controller: file.controller, ...identityOf(file, path) };
  context.fleet = fleetOf(new X509Certificate(context.certificates));
  return context;
}

// identityOf reads what probectl user create writes, or the files of an own PKI.
function identityOf(file, path) {
  if (file.identity) {
    if (process.platform !== 'win32' && (statSync(path).mode & 0o077) !== 0) {
      throw new Error(`${path}: too many may read it, and it holds a private key; chmod 0600 it`);
    }
    const state = JSON.parse(file.identity);
    if (state.format !== 'synmesh identity 1') {
      throw new Error(`${path}: the identity's format is ${JSON.stringify(state.format)}, and "synmesh identity 1" is known`);
    }
    return { key: state.key, certificates: state.certificates, roots: state.roots };
  }
  if (!file.certificate || !file.key || !file.roots) {
    throw new Error(`${path}: it does not say who you are; use what probectl user create wrote`);
  }
  const read = (name) => readFileSync(resolve(dirname(path), name), 'utf8');
  return { key: read(file.key), certificates: read(file.certificate), roots: read(file.roots) };
}

// uriOf returns the one URI of a certificate; undefined if it has several, or none. Node puts
// names in quotes that could be taken for several; ours have nothing that needs them.
export function uriOf(alternativeNames) {
  const names = alternativeNames?.includes('"') ? [] : (alternativeNames ?? '').split(', ');
  const uris = names.filter((name) => name.startsWith('URI:'));
  return uris.length === 1 ? uris[0].slice('URI:'.length) : undefined;
}

// fleetOf returns the trust domain of a certificate.
export function fleetOf(certificate) {
  const uri = uriOf(certificate.subjectAltName);
  if (!uri?.startsWith('spiffe://')) {
    throw new Error(`the certificate names nobody of a fleet: ${certificate.subjectAltName}`);
  }
  return uri.split('/')[2];
}
