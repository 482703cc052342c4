// SPDX-License-Identifier: MIT
import { hasCompiler } from '../support/preloaded-library';

export { PreloadedLibrary } from '../support/preloaded-library';

/** Skips tests that need a {@link PreloadedLibrary} where there is no C compiler. */
export const testWithCompiler = hasCompiler ? test : test.skip;
