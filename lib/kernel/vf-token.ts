// SPDX-License-Identifier: MIT

/** A UUID as the kernel reads it (`uuid_parse`). */
const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i;

/** What a VF token is, for messages. */
export const VF_TOKEN_FORM = 'a UUID, such as bd8d9d2b-5a5f-4f5a-a211-f591514ba1f3';

/** Whether a text can be a VF token, which a physical function and its virtual ones share. */
export function isVfToken(text: string): boolean {
  return UUID.test(text);
}
