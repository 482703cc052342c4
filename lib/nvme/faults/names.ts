// SPDX-License-Identifier: MIT
import {
  AdminOpcode,
  AsyncErrorEvent,
  AsyncEventType,
  AsyncNotice,
  AsyncSmartEvent,
  CommandStatus,
  GenericStatus,
  LogPage,
  MediaStatus,
  NvmOpcode,
  PathStatus,
  Register,
  StatusCodeType,
  type AsyncEvent,
} from '../spec';

/** The names of a table of the specification as they are written in a fault: `writeZeroes` is `write-zeroes`. */
function kebab<T>(table: Readonly<Record<string, T>>): [name: string, value: T][] {
  return Object.entries(table).map(([key, value]) => [
    key.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`),
    value,
  ]);
}

/** Opcodes of admin commands by name. */
export const ADMIN_COMMANDS: ReadonlyMap<string, number> = new Map(kebab(AdminOpcode));

/** Opcodes of I/O commands by name. No name is an admin command's too. */
export const IO_COMMANDS: ReadonlyMap<string, number> = new Map(kebab(NvmOpcode));

/** A status code type and a status code. */
export type StatusCodes = readonly [sct: number, sc: number];

function statuses(sct: number, table: Readonly<Record<string, number>>): [string, StatusCodes][] {
  return kebab(table).map(([name, sc]) => [name, [sct, sc]]);
}

/** Status codes by name. */
export const STATUSES: ReadonlyMap<string, StatusCodes> = new Map([
  ...statuses(StatusCodeType.generic, GenericStatus),
  ...statuses(StatusCodeType.commandSpecific, CommandStatus),
  ...statuses(StatusCodeType.media, MediaStatus),
  ...statuses(StatusCodeType.path, PathStatus),
]);

/** The log page that a host reads after a notice. */
const NOTICE_PAGES: Readonly<Record<number, number>> = {
  [AsyncNotice.namespaceAttributeChanged]: LogPage.changedNamespaces,
  [AsyncNotice.firmwareActivationStarting]: LogPage.firmwareSlot,
  [AsyncNotice.telemetryLogChanged]: LogPage.telemetryController,
  [AsyncNotice.anaChange]: LogPage.asymmetricAccess,
};

function events(
  type: number,
  infos: Readonly<Record<string, number>>,
  logPageOf: (info: number) => number,
): [string, AsyncEvent][] {
  return kebab(infos).map(([name, info]) => [name, { type, info, logPage: logPageOf(info) }]);
}

/** Asynchronous events by name. */
export const EVENTS: ReadonlyMap<string, AsyncEvent> = new Map([
  ...events(AsyncEventType.error, AsyncErrorEvent, () => LogPage.error),
  ...events(AsyncEventType.smart, AsyncSmartEvent, () => LogPage.smart),
  ...events(AsyncEventType.notice, AsyncNotice, (info) => NOTICE_PAGES[info] as number),
]);

/** Registers whose length is 8 bytes. */
const WIDE: ReadonlySet<number> = new Set<number>([
  Register.cap,
  Register.asq,
  Register.acq,
  Register.bpmbl,
  Register.cmbmsc,
]);

/** Bytes of BAR 0, the last one included. */
export type RegisterRange = readonly [first: number, last: number];

/** Registers by name, as ranges of bytes of BAR 0. */
export const REGISTERS: ReadonlyMap<string, RegisterRange> = new Map([
  ...kebab(Register).map(([name, offset]): [string, RegisterRange] => [
    name,
    [offset, offset + (WIDE.has(offset) ? 7 : 3)],
  ]),
  ['doorbells', [Register.doorbells, Infinity]],
  ['any', [0, Infinity]],
]);
