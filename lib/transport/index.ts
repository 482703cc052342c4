// SPDX-License-Identifier: MIT
export { CommandError, Errno, type CommandReply, type IncomingCommand } from './commands';
export { Connection, type ConnectionStatistics } from './connection';
export { DeadlineTimer } from './deadline-timer';
export { closedError, disconnectedError, errorFor } from './errors';
export type { FdList } from './incoming';
export type { Lane, LaneQueue, Turn } from './lanes';
export { SLEEP_MILLISECONDS, SPIN_MICROSECONDS } from './pump';
export type { Reply, Request } from './requests';
export type { MessageTrace, StateTrace } from './trace';
