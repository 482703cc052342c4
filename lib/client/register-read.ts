// SPDX-License-Identifier: MIT
import { asError } from '../errors';
import { Command } from '../protocol/constants';
import { REGION_READ_DATA, checkRegionReadReply, putRegionReadRequest } from '../protocol/region-access';
import type { Connection } from '../transport';
import { numberOfBytes } from './register-value';

const WORD = Uint32Array.BYTES_PER_ELEMENT;
const DATA_WORD = REGION_READ_DATA / WORD;

/**
 * Reads of the registers of one region. As many may be in flight at once, or a register be polled while the server is still
 * awake, little is allocated and done for each.
 */
export class RegisterRead {
  readonly #connection: Connection;
  readonly #region: number;
  readonly #complete: (offset: number, width: number, done: number) => void;
  /** The request as words and as bytes. */
  readonly #words = new Uint32Array(DATA_WORD);
  readonly #payload = new Uint8Array(this.#words.buffer);
  readonly #answer = new Uint32Array(DATA_WORD + 1);
  readonly #wordsRequest = { command: Command.regionRead, words: this.#words, maxReply: 0 };

  /** @param complete throws for a reply of fewer bytes than the register has */
  constructor(
    connection: Connection,
    region: number,
    complete: (offset: number, width: number, done: number) => void,
  ) {
    this.#connection = connection;
    this.#region = region;
    this.#complete = complete;
  }

  /** @throws VfioUserError as of a request; ERR_VFIO_USER_PROTOCOL when the reply is to another access */
  read(offset: number, width: 1 | 2 | 4): Promise<number> {
    return new Promise((resolve, reject) => {
      putRegionReadRequest(this.#words, { offset, region: this.#region, count: width });
      const request = {
        command: Command.regionRead,
        payload: this.#payload,
        maxReply: REGION_READ_DATA + width,
      };
      this.#connection.submit(request, (error, reply) => {
        try {
          if (reply === null) throw asError(error);
          this.#check(reply.payload, offset, width);
          resolve(numberOfBytes(reply.payload, REGION_READ_DATA, width));
        } catch (reason) {
          reject(asError(reason));
        }
      });
    });
  }

  /** The same, blocking. */
  readSync(offset: number, width: 1 | 2 | 4): number {
    const request = this.#wordsRequest;
    const answer = this.#answer;
    putRegionReadRequest(this.#words, { offset, region: this.#region, count: width });
    request.maxReply = REGION_READ_DATA + width;
    const reply = this.#connection.requestWordsSync(request, answer);
    if (reply === request.maxReply && repeats(answer, this.#words)) {
      const value = answer[DATA_WORD] as number;
      return width === WORD ? value : value & (2 ** (8 * width) - 1);
    }
    const payload = typeof reply === 'number' ? new Uint8Array(answer.buffer, 0, reply) : reply.payload;
    this.#check(payload, offset, width);
    return numberOfBytes(payload, REGION_READ_DATA, width);
  }

  #check(payload: Uint8Array, offset: number, width: number): void {
    const done = checkRegionReadReply(payload, { offset, region: this.#region, count: width });
    this.#complete(offset, width, done);
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
