// SPDX-License-Identifier: MIT
import { didYouMean } from '../closest';

/** A command that can be given to a server while it runs. */
export interface ControlCommand {
  /** What it does, and what its argument is. */
  readonly help: string;
  /**
   * Does it.
   * @param argument as it came: any value of JSON, undefined without one
   * @returns the result, a value for JSON
   * @throws what is wrong; the client gets the message
   */
  readonly run: (argument: unknown) => unknown;
}

/** Commands by name. */
export type ControlCommands = ReadonlyMap<string, ControlCommand>;

/** What a request is answered with: a result or an error. */
export interface ControlAnswer {
  /** As the request had it; null when it had none, or could not be read. */
  readonly id: unknown;
  readonly result?: unknown;
  readonly error?: string;
}

const KEYS = ['id', 'command', 'argument'];

/** Does what a line asks for. Never throws; the promise never rejects. */
export function answerTo(line: string, commands: ControlCommands): ControlAnswer | Promise<ControlAnswer> {
  let id: unknown = null;
  const failed = (error: unknown): ControlAnswer => ({ id, error: messageOf(error) });
  const succeeded = (result: unknown): ControlAnswer => ({ id, result: result ?? null });
  try {
    const request = requestOf(line);
    id = request['id'] ?? null;
    const result = commandOf(request, commands).run(request['argument']);
    return result instanceof Promise ? result.then(succeeded, failed) : succeeded(result);
  } catch (error) {
    return failed(error);
  }
}

function requestOf(line: string): Readonly<Record<string, unknown>> {
  let request: unknown;
  try {
    request = JSON.parse(line);
  } catch (error) {
    throw new Error(`a line is one object of JSON, and this is none: ${messageOf(error)}`);
  }
  if (typeof request === 'object' && request !== null && !Array.isArray(request))
    return request as Record<string, unknown>;
  throw new Error('a line is one object of JSON, such as {"id": 1, "command": "help"}');
}

function commandOf(request: Readonly<Record<string, unknown>>, commands: ControlCommands): ControlCommand {
  const surplus = Object.keys(request).find((key) => !KEYS.includes(key));
  if (surplus !== undefined)
    throw new Error(`'${surplus}' is no part of a request; it has ${KEYS.join(', ')}`);
  const { command } = request;
  const names = [...commands.keys()];
  if (typeof command !== 'string') throw new Error(`command is one of ${names.join(', ')}`);
  const found = commands.get(command);
  if (found !== undefined) return found;
  throw new Error(
    `there is no command '${command}'${didYouMean(command, names) || `; it is one of ${names.join(', ')}`}`,
  );
}

function messageOf(error: unknown): string {
  return typeof error === 'object' && error !== null && 'message' in error
    ? String(error.message)
    : String(error);
}
