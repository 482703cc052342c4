// SPDX-License-Identifier: MIT
import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';

/** How a program ended. */
export interface Ended {
  readonly status: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** The package as `npm pack` made it. */
export function tarball(): string {
  return process.env['VFIO_USER_TARBALL'] ?? '';
}

/**
 * An empty project for a Node.js, whose programs find nothing but that Node.js and a shell: no compiler, no make, no
 * Python.
 */
export class Project {
  readonly directory = mkdtempSync(join(tmpdir(), 'vfio-user-project-'));
  readonly #node: string;
  readonly #path = join(this.directory, 'programs');

  constructor(node: string = process.execPath) {
    this.#node = node;
    mkdirSync(this.#path);
    symlinkSync('/bin/sh', join(this.#path, 'sh'));
    symlinkSync(node, join(this.#path, 'node'));
    this.write('package.json', '{ "name": "project", "private": true }');
  }

  write(name: string, text: string): string {
    const path = join(this.directory, name);
    mkdirSync(dirname(path), { recursive: true });
    writeFileSync(path, text);
    return path;
  }

  /** Runs a script with the project's Node.js in the project. */
  run(script: string, ...args: string[]): Ended {
    const { status, stdout, stderr } = spawnSync(this.#node, [script, ...args], {
      cwd: this.directory,
      encoding: 'utf8',
      env: { HOME: process.env['HOME'], PATH: this.#path },
    });
    return { status, stdout, stderr };
  }

  [Symbol.dispose](): void {
    rmSync(this.directory, { recursive: true });
  }
}
