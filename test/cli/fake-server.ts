// SPDX-License-Identifier: MIT
import { createServer, type Socket } from 'node:net';

/** A listener on a unix socket that does as told with each client; {@link close} ends it. */
export interface FakeServer {
  close(): Promise<void>;
}

/** @param onClient called for each client; what it sends is read and dropped unless a listener is added */
export async function fakeServer(path: string, onClient: (socket: Socket) => void): Promise<FakeServer> {
  const sockets = new Set<Socket>();
  const server = createServer((socket) => {
    sockets.add(socket);
    socket.on('error', () => undefined).on('close', () => sockets.delete(socket));
    onClient(socket);
    socket.resume();
  });
  await new Promise<void>((resolve) => server.listen(path, resolve));
  return {
    close: () =>
      new Promise((resolve) => {
        for (const socket of sockets) socket.destroy();
        server.close(() => {
          resolve();
        });
      }),
  };
}

/** A reply to the client's VERSION, whose message id is echoed: header of 16 bytes, major, minor, JSON (vfio-user, "Header", "VFIO_USER_VERSION"). */
export function versionReply(id: number, major: number, minor: number, json: string): Buffer {
  const text = Buffer.from(`${json}\0`);
  const message = Buffer.alloc(20);
  message.writeUInt16LE(id, 0);
  message.writeUInt16LE(1, 2); // VFIO_USER_VERSION
  message.writeUInt32LE(20 + text.length, 4);
  message.writeUInt32LE(1, 8); // reply
  message.writeUInt16LE(major, 16);
  message.writeUInt16LE(minor, 18);
  return Buffer.concat([message, text]);
}
