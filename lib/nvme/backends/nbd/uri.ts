// SPDX-License-Identifier: MIT
import { isIP } from 'node:net';
import { join } from 'node:path';
import { invalidArgument } from '../../../errors';

/** The port of NBD servers (IANA). */
const DEFAULT_PORT = 10_809;
/** Longest path of a unix socket, and longest export name, in bytes. */
const MAX_SOCKET_PATH = 107;
const MAX_EXPORT_NAME = 4096;

const SCHEMES = 'nbd://HOST[:PORT]/EXPORT, nbds:// with TLS, nbd+unix:///EXPORT?socket=PATH or nbds+unix://';

/** TLS of a connection to an NBD server. */
export interface NbdTls {
  /** Name that the server's certificate is checked for. */
  readonly hostname: string | undefined;
  /** Whether the server's certificate is checked. */
  readonly verifyPeer: boolean;
  /** Files of PEM: who is trusted beside the well-known authorities, and what this client shows. */
  readonly caFile: string | undefined;
  readonly certificateFile: string | undefined;
  readonly keyFile: string | undefined;
}

/** What an NBD URI tells. */
export interface NbdAddress {
  /** The URI, for messages. */
  readonly uri: string;
  readonly transport:
    | { readonly kind: 'tcp'; readonly host: string; readonly port: number }
    | { readonly kind: 'unix'; readonly path: string };
  /** Name of the export; the empty one is the server's default. */
  readonly exportName: string;
  /** Undefined for a connection without TLS. */
  readonly tls: NbdTls | undefined;
}

/**
 * Reads an NBD URI (NBD's doc/uri.md). Beside the parameters that are told there, `tls-certificates` is known, as libnbd has it: a
 * folder with ca-cert.pem and, for a client that shows who it is, client-cert.pem and client-key.pem.
 *
 * @throws TypeError for what is wrong in it
 */
export function parseNbdUri(uri: string): NbdAddress {
  const parts = /^(nbds?)(\+\w+)?:\/\/([^/?#]*)([^?#]*)(?:\?([^#]*))?(#.*)?$/i.exec(uri);
  if (parts === null) throw wrong(uri, `it is ${SCHEMES}`);
  const [, scheme = '', kind = '', authority = '', path = '', query = '', fragment] = parts;
  if (fragment !== undefined) throw wrong(uri, `it has no fragment (#); write %23 for a # in a name`);
  const parameters = parseQuery(uri, query);
  const take = (name: string): string | undefined => {
    const value = parameters.get(name);
    parameters.delete(name);
    return value;
  };
  const exportName = decode(uri, path.slice(1));
  if (exportName.includes('\0')) throw wrong(uri, 'the name of an export has no NUL');
  if (Buffer.byteLength(exportName) > MAX_EXPORT_NAME) {
    throw wrong(uri, `the name of an export has at most ${MAX_EXPORT_NAME} bytes`);
  }
  const secure = scheme.toLowerCase() === 'nbds';
  const socket = take('socket');
  const transport = isUnix(uri, kind) ? unixSocket(uri, authority, socket) : tcp(uri, authority, socket);
  const host = transport.kind === 'tcp' ? transport.host : undefined;
  const tls = secure ? tlsOptions(uri, take, host) : undefined;
  const [unknown] = parameters.keys();
  if (unknown !== undefined) {
    const reason = unknown.startsWith('tls-') && !secure ? 'goes with nbds:// only' : 'is not known';
    throw wrong(uri, `the parameter ${unknown} ${reason}`);
  }
  return { uri, transport, exportName, tls };
}

function isUnix(uri: string, kind: string): boolean {
  switch (kind.toLowerCase()) {
    case '':
    case '+tcp':
      return false;
    case '+unix':
      return true;
    default:
      throw wrong(uri, `${kind.slice(1)} is no transport that is known here: it is ${SCHEMES}`);
  }
}

function tcp(uri: string, authority: string, socket: string | undefined): NbdAddress['transport'] {
  if (socket !== undefined) throw wrong(uri, 'socket goes with nbd+unix:// only');
  const parts = /^(?:([^@]*)@)?(\[[^\]]*\]|[^:[\]]*)(?::(\d*))?$/.exec(authority);
  if (parts === null) throw wrong(uri, `${authority} is no HOST[:PORT]; an IPv6 address has brackets`);
  const [, user, given = '', portText = ''] = parts;
  if (user !== undefined) throw wrong(uri, 'a user name is for pre-shared keys, which are not known here');
  const host = given.startsWith('[') ? given.slice(1, -1) : decode(uri, given);
  if (host === '') throw wrong(uri, 'the host is missing');
  if (given.startsWith('[') && isIP(host) !== 6) throw wrong(uri, `${host} is no IPv6 address`);
  const port = portText === '' ? DEFAULT_PORT : Number(portText);
  if (port < 1 || port > 65_535) throw wrong(uri, `a port is a number from 1 to 65535, got ${portText}`);
  return { kind: 'tcp', host, port };
}

function unixSocket(uri: string, authority: string, socket: string | undefined): NbdAddress['transport'] {
  if (authority !== '') {
    throw wrong(uri, `nbd+unix has no host, got ${authority}: three slashes come before the export`);
  }
  if (socket === undefined || socket === '') throw wrong(uri, 'the parameter socket, a path, is missing');
  if (Buffer.byteLength(socket) > MAX_SOCKET_PATH) {
    throw wrong(uri, `the path of a unix socket has at most ${MAX_SOCKET_PATH} bytes`);
  }
  return { kind: 'unix', path: socket };
}

function tlsOptions(
  uri: string,
  take: (name: string) => string | undefined,
  host: string | undefined,
): NbdTls {
  const type = take('tls-type') ?? 'x509';
  if (type !== 'x509') throw wrong(uri, `tls-type is x509, the only one that is known here, got ${type}`);
  const verify = take('tls-verify-peer') ?? '1';
  if (verify !== '0' && verify !== '1') throw wrong(uri, `tls-verify-peer is 0 or 1, got ${verify}`);
  const hostname = take('tls-hostname') ?? host;
  if (hostname === undefined && verify === '1') {
    throw wrong(uri, 'a unix socket has no host: name the one of the certificate by tls-hostname');
  }
  const folder = take('tls-certificates');
  const file = (name: string): string | undefined => (folder === undefined ? undefined : join(folder, name));
  return {
    hostname,
    verifyPeer: verify === '1',
    caFile: file('ca-cert.pem'),
    certificateFile: file('client-cert.pem'),
    keyFile: file('client-key.pem'),
  };
}

function parseQuery(uri: string, query: string): Map<string, string> {
  const parameters = new Map<string, string>();
  for (const item of query.split('&')) {
    if (item === '') continue;
    const at = item.indexOf('=');
    const name = decode(uri, at < 0 ? item : item.slice(0, at));
    if (at < 0) throw wrong(uri, `the parameter ${name} has no value`);
    if (parameters.has(name)) throw wrong(uri, `the parameter ${name} comes twice`);
    parameters.set(name, decode(uri, item.slice(at + 1)));
  }
  return parameters;
}

function decode(uri: string, text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    throw wrong(uri, `${text} has a % that is not followed by the two digits of a byte of UTF-8`);
  }
}

function wrong(uri: string, problem: string): TypeError {
  return invalidArgument(`The NBD URI ${uri} makes no sense: ${problem}`);
}
