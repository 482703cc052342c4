// SPDX-License-Identifier: MIT
// What bounds a connection.

/** Time-out of a request unless it says otherwise, in milliseconds. */
export const DEFAULT_TIMEOUT = 5000;
/** Largest message accepted unless said otherwise, in bytes: 1 MiB of data and its fixed part. */
export const DEFAULT_MAX_MESSAGE = (1 << 20) + (1 << 16);
/** Above this many queued bytes, requests wait for their turn. */
export const HIGH_WATER = 4 << 20;
/** Messages handled per readiness event, so that one peer cannot keep the event loop to itself. */
export const MESSAGES_PER_EVENT = 256;
/** How long the synchronous form spins before it sleeps in poll(2). A reply from an idle core takes 15 to 30 µs. */
export const SPIN_MICROSECONDS = 50;
/** Longest single sleep of the synchronous form, so that deadlines of other requests are kept meanwhile. */
export const SLEEP_MILLISECONDS = 100;
/** The same with a companion, whose commands must not wait longer. */
export const COMPANION_SLEEP_MILLISECONDS = 1;
