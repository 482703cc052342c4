// SPDX-License-Identifier: MIT
export { CommandError, Errno } from './command-error';
export type { CommandHandler, CommandReply, IncomingCommand } from './command-queue';
export { Connection, type ConnectionOptions, type ConnectionStatistics, type Request } from './connection';
export { FdList } from './fd-list';
export type { Reply } from './pending-table';
