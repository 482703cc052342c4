// SPDX-License-Identifier: MIT
import { describeGuest } from './describe-guest';

/** Faults of single blocks, which nothing but the script reads. */
const FAULTS = [
  'on=read,lba=4096,status=unrecovered-read-error,dnr',
  'on=read,lba=4104,nth=1,hang',
  'on=read,lba=4112,nth=1,cid',
  'on=read,lba=4120,nth=1,twice',
  'on=read,lba=4128,nth=1,silent',
  'on=read,lba=4136,nth=1,delay=2s',
  'on=read,lba=4144,nth=1,event=persistent-internal-error',
];

describeGuest('faults on demand', {
  script: 'faults',
  serve: ['--size', '64m', ...FAULTS.flatMap((fault) => ['--fault', fault])],
  // Seconds after which Linux aborts a command, and after as many more resets the controller.
  words: ['nvme_core.io_timeout=4'],
});
