// SPDX-License-Identifier: MIT
import { Command } from '../protocol/constants';
import { REGION_READ_DATA, checkRegionReadReply, putRegionReadRequest } from '../protocol/region-access';
import type { Connection } from '../transport';

const WORD = Uint32Array.BYTES_PER_ELEMENT;
const DATA_WORD = REGION_READ_DATA / WORD;

/**
 * Blocking reads of the registers of one region. Nothing is allocated, and little is done between a reply and the next
 * request: whoever polls a register finds the server still awake.
 */
export class RegisterRead {
  readonly #connection: Connection;
  readonly #region: number;
  readonly #request = { command: Command.regionRead, words: new Uint32Array(DATA_WORD), maxReply: 0 };
  readonly #answer = new Uint32Array(DATA_WORD + 1);

  constructor(connection: Connection, region: number) {
    this.#connection = connection;
    this.#region = region;
  }

  /**
   * @param complete throws for a reply of fewer bytes than the register has
   * @throws VfioUserError as of a request; ERR_VFIO_USER_PROTOCOL when the reply is to another access
   */
  run(offset: number, width: 1 | 2 | 4, complete: (done: number) => void): number {
    const request = this.#request;
    const answer = this.#answer;
    const access = { offset, region: this.#region, count: width };
    putRegionReadRequest(request.words, access);
    request.maxReply = REGION_READ_DATA + width;
    const reply = this.#connection.requestWordsSync(request, answer);
    if (reply !== request.maxReply || !repeats(answer, request.words)) {
      // The unusual ones.
      const bytes = new Uint8Array(answer.buffer);
      const payload = typeof reply === 'number' ? bytes.subarray(0, reply) : reply.payload;
      complete(checkRegionReadReply(payload, access));
      bytes.set(payload);
    }
    const value = answer[DATA_WORD] as number;
    return width === WORD ? value : value & (2 ** (8 * width) - 1);
  }
}

function repeats(answer: Uint32Array, request: Uint32Array): boolean {
  return (
    answer[0] === request[0] &&
    answer[1] === request[1] &&
    answer[2] === request[2] &&
    answer[3] === request[3]
  );
}
