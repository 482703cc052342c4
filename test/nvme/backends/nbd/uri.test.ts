// SPDX-License-Identifier: MIT
import { parseNbdUri } from '../../../../lib/nvme/backends/nbd/uri';

test.each([
  ['nbd://example.com/disk', { kind: 'tcp', host: 'example.com', port: 10809 }, 'disk'],
  ['NBD+TCP://example.com:99', { kind: 'tcp', host: 'example.com', port: 99 }, ''],
  ['nbd://[::1]:7/', { kind: 'tcp', host: '::1', port: 7 }, ''],
  ['nbd://example.com//disk', { kind: 'tcp', host: 'example.com', port: 10809 }, '/disk'],
  ['nbd://example.com/hello%20world', { kind: 'tcp', host: 'example.com', port: 10809 }, 'hello world'],
  ['nbd+unix:///disk?socket=sock', { kind: 'unix', path: 'sock' }, 'disk'],
  ['nbd+unix:///?socket=%00/abstract', { kind: 'unix', path: '\0/abstract' }, ''],
  ['nbd+unix://?socket=a%26b%3Dc', { kind: 'unix', path: 'a&b=c' }, ''],
])('%s', (uri, transport, exportName) => {
  expect(parseNbdUri(uri)).toEqual({ uri, transport, exportName, tls: undefined });
});

test('TLS', () => {
  expect(parseNbdUri('nbds://example.com/').tls).toEqual({ hostname: 'example.com', verifyPeer: true });
  expect(parseNbdUri('nbds://127.0.0.1/').tls).toMatchObject({ hostname: '127.0.0.1' });
  expect(
    parseNbdUri('nbds+unix:///?socket=s&tls-type=x509&tls-hostname=h&tls-verify-peer=0&tls-certificates=/pki')
      .tls,
  ).toEqual({
    hostname: 'h',
    verifyPeer: false,
    caFile: '/pki/ca-cert.pem',
    certificateFile: '/pki/client-cert.pem',
    keyFile: '/pki/client-key.pem',
  });
});

test.each([
  ['example.com', /it is nbd:\/\/HOST/],
  ['http://example.com/', /it is nbd:\/\/HOST/],
  ['nbd+vsock://2', /vsock is no transport that is known here/],
  ['nbd:///disk', /the host is missing/],
  ['nbd://user@host/', /a user name is for pre-shared keys/],
  ['nbd://host:0/', /a port is a number from 1 to 65535, got 0/],
  ['nbd://host:99999/', /got 99999/],
  ['nbd://host:port/', /host:port is no HOST\[:PORT\]/],
  ['nbd://::1/', /an IPv6 address has brackets/],
  ['nbd://[1.2.3.4]/', /1\.2\.3\.4 is no IPv6 address/],
  ['nbd://host/?socket=x', /socket goes with nbd\+unix/],
  ['nbd://host/?port=1', /the parameter port is not known/],
  ['nbd://host/?tls-hostname=x', /the parameter tls-hostname goes with nbds/],
  ['nbd://host/a#b', /no fragment/],
  ['nbd://host/%zz', /%zz has a %/],
  ['nbd://host/a%00b', /has no NUL/],
  [`nbd://host/${'x'.repeat(4097)}`, /at most 4096 bytes/],
  ['nbd+unix:///disk', /the parameter socket, a path, is missing/],
  ['nbd+unix://disk?socket=s', /has no host, got disk: three slashes/],
  ['nbd+unix:///?socket', /socket has no value/],
  ['nbd+unix:///?socket=a&socket=b', /socket comes twice/],
  [`nbd+unix:///?socket=${'x'.repeat(108)}`, /at most 107 bytes/],
  ['nbds+unix:///?socket=s', /name the one of the certificate by tls-hostname/],
  ['nbds://host/?tls-type=psk', /tls-type is x509, .*got psk/],
  ['nbds://host/?tls-verify-peer=no', /tls-verify-peer is 0 or 1, got no/],
])('%s makes no sense', (uri, message) => {
  expect(() => parseNbdUri(uri)).toThrow(message);
  expect(() => parseNbdUri(uri)).toThrow(expect.objectContaining({ code: 'ERR_INVALID_ARG_VALUE' }));
});
