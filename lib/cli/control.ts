// SPDX-License-Identifier: MIT
import { connect } from 'node:net';
import { VfioUserError } from '../errors';
import { defineCommand } from './command';
import type { CommandSpec } from './option-spec';
import { print } from './output';
import { checkSocketFile } from './socket-permissions';

/** How long a command may take, in milliseconds. */
const TIMEOUT = 10_000;
/** Characters of the longest answer. */
const MAX_ANSWER = 1 << 24;

const SPEC = {
  name: 'control',
  summary: 'Give a command to a server that listens at --control.',
  positionals: [
    { name: 'path', help: 'The control socket.' },
    { name: 'command', help: 'What to do; help lists the commands.' },
    { name: 'argument', help: 'What the command is about: a text, a number, or JSON.', optional: true },
  ],
  options: {},
  examples: [
    ['control ctl.sock help', 'What can be done'],
    ['control ctl.sock add-fault on=write,nth=10,status=write-fault', 'The tenth write from now on fails'],
    ['control ctl.sock faults', 'What the faults have done'],
  ],
} as const satisfies CommandSpec;

/** `vfio-user control` */
export const control = defineCommand(SPEC, async (_options, [path = '', command = '', argument]) => {
  const request = { id: 1, command, ...(argument !== undefined && { argument: valueOf(argument) }) };
  checkSocketFile('The control socket', path);
  const result = resultOf(await ask(path, `${JSON.stringify(request)}\n`), path);
  if (result !== null) print(JSON.stringify(result, null, 2));
});

/** @throws what the server says is wrong */
function resultOf(line: string, path: string): unknown {
  const answer = valueOf(line);
  if (typeof answer === 'object' && answer !== null) {
    if ('error' in answer) throw new Error(String(answer.error));
    if ('result' in answer) return answer.result;
  }
  throw new Error(`${path}: what listens there is no control socket`);
}

/** A number or JSON is sent as what it is, and anything else as a text. */
function valueOf(argument: string): unknown {
  try {
    return JSON.parse(argument);
  } catch {
    return argument;
  }
}

/** Sends a line, and resolves with the line that comes back. */
function ask(path: string, line: string): Promise<string> {
  return new Promise((resolve, reject) => {
    const socket = connect(path);
    let received = '';
    const fail = (
      code:
        | 'ERR_VFIO_USER_CONNECT'
        | 'ERR_VFIO_USER_DISCONNECTED'
        | 'ERR_VFIO_USER_PROTOCOL'
        | 'ERR_VFIO_USER_TIMEOUT',
      what: string,
    ): void => {
      socket.destroy();
      reject(new VfioUserError(code, `${path}: ${what}`));
    };
    socket.setEncoding('utf8').setTimeout(TIMEOUT);
    socket.once('connect', () => socket.write(line));
    socket.on('data', (text: string) => {
      received += text;
      const end = received.indexOf('\n');
      if (end < 0) {
        if (received.length > MAX_ANSWER)
          fail('ERR_VFIO_USER_PROTOCOL', 'what listens there is no control socket');
        return;
      }
      socket.destroy();
      resolve(received.slice(0, end));
    });
    socket.once('error', (error) => {
      fail('ERR_VFIO_USER_CONNECT', `no server takes commands there: ${error.message}`);
    });
    socket.once('timeout', () => {
      fail('ERR_VFIO_USER_TIMEOUT', `no answer within ${TIMEOUT / 1000} s`);
    });
    socket.once('close', () => {
      fail('ERR_VFIO_USER_DISCONNECTED', 'the server ended the connection without an answer');
    });
  });
}
