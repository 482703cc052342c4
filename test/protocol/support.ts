// SPDX-License-Identifier: MIT
import fc from 'fast-check';
import { VfioUserError } from '../../lib/errors';

export { hex, toHex } from '../support/bytes';

/** Hexadecimal text without blanks and line breaks, as `toHex` writes it. */
export function plain(text: string): string {
  return text.replace(/\s+/g, '');
}

/** Asserts that `decode` throws the protocol error with this command and text. */
export function expectProtocolError(decode: () => unknown, command: string, text: string | RegExp): void {
  let thrown: unknown;
  try {
    decode();
  } catch (error) {
    thrown = error;
  }
  expect(thrown).toBeInstanceOf(VfioUserError);
  expect(thrown).toMatchObject({ code: 'ERR_VFIO_USER_PROTOCOL', command });
  expect((thrown as VfioUserError).message).toMatch(text);
}

/** Any 64-bit value, in the type that decoders give it. */
export const anyU64 = fc
  .oneof(fc.bigInt({ min: 0n, max: 0xffff_ffff_ffff_ffffn }), fc.bigInt({ min: 0n, max: 0xffff_ffffn }))
  .map((value) => (value <= BigInt(Number.MAX_SAFE_INTEGER) ? Number(value) : value));
export const anyU32 = fc.oneof(fc.nat({ max: 0xffff_ffff }), fc.nat({ max: 64 }));
/** Any number that a safe 64-bit field takes, with room for a 32-bit count above it. */
export const anySafe = fc.integer({ min: 0, max: Number.MAX_SAFE_INTEGER - 0xffff_ffff });

/** Payloads of up to 200 bytes, half of them mostly small numbers so that they get past the first checks. */
const anyPayload = fc.oneof(
  fc.uint8Array({ maxLength: 200 }),
  fc
    .array(
      fc.oneof(
        { weight: 6, arbitrary: fc.nat({ max: 64 }) },
        { weight: 1, arbitrary: fc.nat({ max: 0xffff_ffff }) },
      ),
      {
        maxLength: 50,
      },
    )
    .map((words) => new Uint8Array(Uint32Array.from(words).buffer)),
);

/**
 * Asserts that `decode` takes any bytes: it returns, or throws the protocol error, and every view that it returns
 * lies within the payload.
 */
export function expectRobust(decode: (payload: Uint8Array) => unknown): void {
  fc.assert(
    fc.property(anyPayload, (bytes) => {
      const surroundings = new Uint8Array(bytes.byteLength + 64).fill(0xa5);
      surroundings.set(bytes, 24);
      const payload = surroundings.subarray(24, 24 + bytes.byteLength);
      let result: unknown;
      try {
        result = decode(payload);
      } catch (error) {
        expect(error).toBeInstanceOf(VfioUserError);
        expect(error).toMatchObject({ code: 'ERR_VFIO_USER_PROTOCOL' });
        return;
      }
      for (const view of viewsIn(result)) {
        expect(view.buffer).toBe(surroundings.buffer);
        expect(view.byteOffset).toBeGreaterThanOrEqual(24);
        expect(view.byteOffset + view.byteLength).toBeLessThanOrEqual(24 + bytes.byteLength);
      }
    }),
    { numRuns: 500 },
  );
}

function viewsIn(value: unknown): Uint8Array[] {
  if (value instanceof Uint8Array) return [value];
  if (typeof value !== 'object' || value === null) return [];
  return Object.values(value).flatMap(viewsIn);
}
