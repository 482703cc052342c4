// SPDX-License-Identifier: MIT
import { pathToFileURL } from 'node:url';
import { asError } from '../errors';
import {
  type Backend,
  type BackendImplementation,
  NbdBackend,
  createBackend,
  customBackend,
} from '../nvme/backends';
import type { BackendText } from './backend-text';
import { UsageError } from './option-spec';
import { complain } from './output';

/** Errors of a backend that are told of; then it is quiet about those that are alike. */
const TOLD_ERRORS = 100;

/**
 * Opens a backend that the command line told of. What happens to it later goes to stderr, a line each.
 *
 * @param signal ends the wait for a server
 * @throws UsageError for a module that makes no backend; what the backend throws
 */
export async function openBackend(text: BackendText, signal?: AbortSignal): Promise<Backend> {
  switch (text.kind) {
    case 'nbd':
      return NbdBackend.connect(text.address.uri, {
        ...(text.timeout !== undefined && { timeout: text.timeout * 1000 }),
        ...(signal !== undefined && { signal }),
        onState: complain,
      });
    case 'module':
      return loadBackend(text.path, text.options);
    case 'null':
    case 'memory':
    case 'file':
      return createBackend(text);
  }
}

/** Loads a module whose default export makes a backend, or is one. */
async function loadBackend(path: string, options: Readonly<Record<string, string>>): Promise<Backend> {
  const fail = (problem: string): never => {
    throw new UsageError(`The backend ${path} cannot be used: ${problem}`);
  };
  const { default: exported } = await (
    import(pathToFileURL(path).href) as Promise<{ default?: unknown }>
  ).catch((error: unknown) => fail(asError(error).message));
  if (exported === undefined) fail('it has no default export');
  try {
    const made: unknown = typeof exported === 'function' ? await (exported as Factory)(options) : exported;
    return customBackend(made as BackendImplementation, { onError: errorTeller(path) });
  } catch (error) {
    return fail(asError(error).message);
  }
}

/** The default export of a module: makes a backend of the options that were given, all of them texts. */
type Factory = (options: Readonly<Record<string, string>>) => unknown;

/** Tells each error once. */
function errorTeller(path: string): (error: Error) => void {
  const told = new Set<string>();
  return ({ name, message }) => {
    const line = `The backend ${path} failed: ${name}: ${message}`;
    if (told.has(line) || told.size >= TOLD_ERRORS) return;
    told.add(line);
    complain(line);
  };
}
