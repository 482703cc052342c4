// SPDX-License-Identifier: MIT
export { CommandError, Errno } from './command-error';
export type { CommandHandler, CommandLane, CommandReply, IncomingCommand } from './command-queue';
export { Connection } from './connection';
export type { ConnectionOptions, ConnectionStatistics, Request } from './connection-types';
export { FdList } from './fd-list';
export type { Lane, LaneQueue, Turn } from './lane-queue';
export type { Reply } from './pending-table';
