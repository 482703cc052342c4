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
import type { ReportLimit } from '../report-limit';

/** Milliseconds for a module to load, and then to make its backend. */
const PATIENCE = 10_000;

/**
 * Opens a backend that the command line told of.
 *
 * @param log told of what happens to it later
 * @param signal ends the wait for a server
 * @throws UsageError for a module that makes no backend; what the backend throws
 */
export async function openBackend(
  text: BackendText,
  log: ReportLimit,
  signal?: AbortSignal,
): Promise<Backend> {
  switch (text.kind) {
    case 'nbd':
      return NbdBackend.connect(text.address.uri, {
        ...(text.timeout !== undefined && { timeout: text.timeout * 1000 }),
        ...(signal !== undefined && { signal }),
        onState: (state) => {
          log.report(state);
        },
      });
    case 'module':
      return loadBackend(text.path, text.options, log);
    case 'null':
    case 'memory':
    case 'file':
      return createBackend(text);
  }
}

/** Loads a module whose default export makes a backend, or is one. */
async function loadBackend(
  path: string,
  options: Readonly<Record<string, string>>,
  log: ReportLimit,
): Promise<Backend> {
  const fail = (problem: string): never => {
    throw new UsageError(`The backend ${path} cannot be used: ${problem}`);
  };
  const { default: exported } = await inTime(
    import(pathToFileURL(path).href) as Promise<{ default?: unknown }>,
  ).catch((error: unknown) => fail(asError(error).message));
  if (exported === undefined) fail('it has no default export');
  try {
    const made = typeof exported === 'function' ? await inTime((exported as Factory)(options)) : exported;
    return customBackend(made as BackendImplementation, {
      onError: ({ name, message }) => {
        log.report(`The backend ${path} failed: ${name}: ${message}`);
      },
    });
  } catch (error) {
    return fail(asError(error).message);
  }
}

/** What a module has promised. Rejects when it takes too long: nobody would know what is waited for. */
async function inTime<T>(promised: T | Promise<T>): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => {
      reject(new Error(`it is not ready within ${PATIENCE / 1000} s`));
    }, PATIENCE);
  });
  try {
    return await Promise.race([promised, late]);
  } finally {
    clearTimeout(timer);
  }
}

/** The default export of a module: makes a backend of the options that were given, all of them texts. */
type Factory = (options: Readonly<Record<string, string>>) => unknown;
