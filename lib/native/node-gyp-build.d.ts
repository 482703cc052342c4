// SPDX-License-Identifier: MIT
declare module 'node-gyp-build' {
  /** Loads the addon of the package in `directory`: from build/Release, else from prebuilds. */
  function load(directory: string): unknown;
  export = load;
}
