// SPDX-License-Identifier: MIT
// The addon runs wherever Node.js does: with glibc 2.28 and the libstdc++ of GCC 5 (GLIBCXX_3.4.21). A newer
// symbol comes in unseen, by a header that has it inlined; test/native/libraries.test.ts names it.
//
// What is avoided elsewhere for this: fstat (glibc 2.33; statx instead), vectors and hash tables that grow
// (GLIBCXX_3.4.29; lists and maps instead), and -fno-rtti, with which std::make_shared needs GLIBCXX_3.4.26.

/**
 * glibc 2.32 and later tell by this variable whether the process has one thread only. The reference counts of
 * std::shared_ptr read it, to spare atomic instructions. Ours hides it: Node.js always has several threads.
 */
extern "C" __attribute__((visibility("hidden"))) char __libc_single_threaded;
char __libc_single_threaded = 0;
