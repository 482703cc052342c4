// SPDX-License-Identifier: MIT
/** Limits of the commands without data buffer, and the commands that they are split into. */
import { NvmeAdmin, NvmeNamespace, type IoQueue } from '../../../lib/nvme/host';
import { NO_LIMITS, type CommandLimits } from '../../../lib/nvme/host/command-limits';
import {
  decodeDatasetRanges,
  decodeIdentifyController,
  type IdentifyNamespace,
} from '../../../lib/nvme/spec';
import { atEnd } from '../../client/support';
import { attached } from './support';

const BLOCK = 512;
const MDTS = 131072;

/** A namespace of 2^40 blocks of 512 bytes, with these limits, and what is sent: LBA and blocks of each command. */
function limited(limits: Partial<CommandLimits>) {
  const sent: string[] = [];
  let [inFlight, most] = [0, 0];
  const queue: Partial<IoQueue> = {
    submit: async (_opcode, _nsid, lba, cdw12) => {
      sent.push(`${lba}+${(cdw12 & 0xffff) + 1}`);
      most = Math.max(most, ++inFlight);
      await new Promise(setImmediate);
      inFlight--;
    },
    submitData: (_opcode, _nsid, words, _cdw12, data) => {
      const ranges = decodeDatasetRanges(data);
      // CDW10 has the number of ranges less one, CDW11 AD in bit 2.
      expect(words).toBe(4 * 2 ** 32 + ranges.length - 1);
      sent.push(ranges.map(({ lba, blocks }) => `${lba}+${blocks}`).join(' '));
      return Promise.resolve();
    },
  };
  const identify = { nsze: 2 ** 40, flbas: 0, lbafs: [{ ms: 0, ds: 9, rp: 0 }] };
  const controller = {
    maxTransferSize: MDTS,
    commandLimits: () => Promise.resolve({ ...NO_LIMITS, ...limits }),
    defaultQueue: () => Promise.resolve(queue as IoQueue),
  };
  const ns = new NvmeNamespace(controller, 1, identify as unknown as IdentifyNamespace);
  return { sent, ns, mostInFlight: () => most };
}

test('write zeroes takes as many blocks as the controller does, few commands at a time', async () => {
  const { sent, ns, mostInFlight } = limited({ zeroBytes: 4 * BLOCK });
  await ns.writeZeroes({ lba: 1, blocks: 10 });
  expect(sent).toEqual(['1+4', '5+4', '9+2']);
  sent.length = 0;
  await ns.writeZeroes({ lba: 0, blocks: 400 });
  expect(mostInFlight()).toBe(64);
  expect(sent).toHaveLength(100);
  expect(sent.at(-1)).toBe('396+4');
});

test('verify and write uncorrectable have limits of their own', async () => {
  const { sent, ns } = limited({ verifyBytes: 2 * BLOCK, uncorrectableBytes: 3 * BLOCK });
  await ns.verify({ lba: 0, blocks: 4 });
  await ns.writeUncorrectable({ lba: 0, blocks: 4 });
  expect(sent).toEqual(['0+2', '2+2', '0+3', '3+1']);
});

test.each<[Partial<CommandLimits>, string[]]>([
  [{}, ['0+8 100+20']],
  [{ ranges: 1 }, ['0+8', '100+20']],
  [{ rangeBlocks: 9 }, ['0+8 100+9 109+9 118+2']],
  [{ rangeBlocks: 9, ranges: 2 }, ['0+8 100+9', '109+9 118+2']],
  [{ blocks: 16 }, ['0+8 100+8', '108+12']],
  [{ blocks: 8 }, ['0+8', '100+8', '108+8', '116+4']],
])('deallocate within %p', async (limits, commands) => {
  const { sent, ns } = limited(limits);
  await ns.deallocate([
    { lba: 0, blocks: 8 },
    { lba: 100, blocks: 20 },
  ]);
  expect(sent).toEqual(commands);
});

test('more than 256 ranges, and more than a range holds', async () => {
  const { sent, ns } = limited({});
  await ns.deallocate(Array.from({ length: 257 }, (_, lba) => ({ lba, blocks: 1 })));
  expect(sent.map((command) => command.split(' ').length)).toEqual([256, 1]);
  sent.length = 0;
  await ns.deallocate([{ lba: 0, blocks: 2 ** 32 }]);
  expect(sent).toEqual(['0+4294967295 4294967295+1']);
  await ns.deallocate([]);
  expect(sent).toHaveLength(1);
});

test('a controller of version 2.0 is asked for its limits once', async () => {
  jest.spyOn(NvmeAdmin.prototype, 'identifyController').mockImplementation(async function (this: NvmeAdmin) {
    return { ...decodeIdentifyController(await this.identify(1)), ver: 0x2_0000 };
  });
  const limits = { vsl: 0, wzsl: 1, wusl: 0, dmrl: 0, dmrsl: 7, dmsl: 9n };
  const asked = jest.spyOn(NvmeAdmin.prototype, 'identifyNvmController').mockResolvedValue(limits);
  atEnd(() => {
    jest.restoreAllMocks();
  });
  const { nvme, model } = await attached();
  expect(await nvme.commandLimits()).toMatchObject({
    zeroBytes: 8192,
    ranges: 256,
    rangeBlocks: 7,
    blocks: 9,
  });
  await nvme.namespace(1).writeZeroes({ lba: 0, blocks: 17 });
  expect(model.statistics.otherCommands).toBe(2);
  expect(asked).toHaveBeenCalledTimes(1);
});

test('one before version 2.0 is not asked', async () => {
  const asked = jest.spyOn(NvmeAdmin.prototype, 'identifyNvmController');
  atEnd(() => {
    asked.mockRestore();
  });
  const { nvme } = await attached();
  expect(await nvme.commandLimits()).toBe(NO_LIMITS);
  expect(asked).not.toHaveBeenCalled();
});
