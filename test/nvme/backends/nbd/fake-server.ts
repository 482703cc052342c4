// SPDX-License-Identifier: MIT
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { type Server, type Socket, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

/** Bytes of hexadecimal digits, which may have spaces. */
export const hex = (digits: string): Buffer => Buffer.from(digits.replaceAll(' ', ''), 'hex');

/** The messages of a server, as NBD's doc/proto.md tells: all written by hand. */
export const Golden = {
  /** NBDMAGIC, IHAVEOPT, fixed newstyle and no zeroes. */
  greeting: hex('4e42444d41474943 49484156454f5054 0003'),
  clientFlags: hex('00000003'),
  askStructured: hex('49484156454f5054 00000008 00000000'),
  structuredUnsupported: hex('0003e889045565a9 00000008 80000001 00000000'),
  structuredAck: hex('0003e889045565a9 00000008 00000001 00000000'),
  /** NBD_OPT_GO of the export "disk", which asks for NBD_INFO_BLOCK_SIZE. */
  askGo: hex('49484156454f5054 00000007 0000000c 00000004 6469736b 0001 0003'),
  /** NBD_INFO_EXPORT: 1 MiB; has flags, flush, FUA, trim, write zeroes. */
  infoExport: hex('0003e889045565a9 00000007 00000003 0000000c 0000 0000000000100000 006d'),
  /** NBD_INFO_BLOCK_SIZE: 512, 4096, 64 KiB. */
  infoBlockSize: hex('0003e889045565a9 00000007 00000003 0000000e 0003 00000200 00001000 00010000'),
  goAck: hex('0003e889045565a9 00000007 00000001 00000000'),
} as const;

/** A request as the server gets it. */
export interface Request {
  readonly header: Buffer;
  readonly flags: number;
  readonly type: number;
  readonly cookie: Buffer;
  readonly offset: number;
  readonly length: number;
  readonly data: Buffer;
}

/** A simple reply. */
export function simple({ cookie }: Request, errno = 0, data: Buffer = Buffer.alloc(0)): Buffer {
  const head = Buffer.alloc(8);
  head.writeUInt32BE(0x67446698, 0);
  head.writeUInt32BE(errno, 4);
  return Buffer.concat([head, cookie, data]);
}

/** A chunk of a structured reply. */
export function chunk(
  { cookie }: Request,
  flags: number,
  type: number,
  content: Buffer = Buffer.alloc(0),
): Buffer {
  const head = Buffer.alloc(8);
  head.writeUInt32BE(0x668e33ef, 0);
  head.writeUInt16BE(flags, 4);
  head.writeUInt16BE(type, 6);
  const length = Buffer.alloc(4);
  length.writeUInt32BE(content.length);
  return Buffer.concat([head, cookie, length, content]);
}

/** The server's side of one connection, whose bytes the test writes. */
export class Peer {
  #bytes = Buffer.alloc(0);
  #wake: () => void = () => undefined;
  ended = false;

  constructor(readonly socket: Socket) {
    socket.on('data', (data: Buffer) => {
      this.#bytes = Buffer.concat([this.#bytes, data]);
      this.#wake();
    });
    socket.on('error', () => undefined);
    socket.on('close', () => {
      this.ended = true;
      this.#wake();
    });
  }

  send(...data: Buffer[]): void {
    this.socket.write(Buffer.concat(data));
  }

  async read(length: number): Promise<Buffer> {
    while (this.#bytes.length < length) {
      if (this.ended) throw new Error('the client has gone');
      await new Promise<void>((resolve) => (this.#wake = resolve));
    }
    const data = this.#bytes.subarray(0, length);
    this.#bytes = this.#bytes.subarray(length);
    return data;
  }

  /** Takes the client through the handshake. */
  async handshake({
    structured = false,
    infos = [Golden.infoExport, Golden.infoBlockSize] as readonly Buffer[],
  } = {}): Promise<void> {
    this.send(Golden.greeting);
    expect(await this.read(4)).toEqual(Golden.clientFlags);
    expect(await this.read(16)).toEqual(Golden.askStructured);
    this.send(structured ? Golden.structuredAck : Golden.structuredUnsupported);
    expect(await this.read(Golden.askGo.length)).toEqual(Golden.askGo);
    this.send(...infos, Golden.goAck);
  }

  async request(): Promise<Request> {
    const header = await this.read(28);
    const length = header.readUInt32BE(24);
    const type = header.readUInt16BE(6);
    return {
      header,
      flags: header.readUInt16BE(4),
      type,
      cookie: header.subarray(8, 16),
      offset: Number(header.readBigUInt64BE(16)),
      length,
      data: type === 1 ? await this.read(length) : Buffer.alloc(0),
    };
  }
}

/** A server whose connections are handed to a function, one after the other. */
export class FakeServer {
  readonly #folder = mkdtempSync(join(tmpdir(), 'nbd-'));
  readonly path = join(this.#folder, 'socket');
  readonly uri = `nbd+unix:///disk?socket=${this.path}`;
  readonly #sockets = new Set<Socket>();
  /** What went wrong in a handler. */
  readonly failures: unknown[] = [];
  #server: Server | undefined;

  async listen(handle: (peer: Peer, index: number) => Promise<void>): Promise<void> {
    let index = 0;
    this.#server = createServer((socket) => {
      this.#sockets.add(socket);
      const peer = new Peer(socket);
      handle(peer, index++).catch((error: unknown) => {
        if (!peer.ended) this.failures.push(error);
      });
    });
    this.#server.listen(this.path);
    await once(this.#server, 'listening');
  }

  /** Ends all connections, and takes no others. */
  stop(): void {
    for (const socket of this.#sockets) socket.destroy();
    this.#server?.close();
  }

  [Symbol.dispose](): void {
    this.stop();
    rmSync(this.#folder, { recursive: true, force: true });
    expect(this.failures).toEqual([]);
  }
}
