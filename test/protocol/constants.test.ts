// SPDX-License-Identifier: MIT
import { Command, commandName } from '../../lib/protocol';

// vfio-user, Commands.
const TABLE: readonly (readonly [number, string])[] = [
  [1, 'VERSION'],
  [2, 'DMA_MAP'],
  [3, 'DMA_UNMAP'],
  [4, 'DEVICE_GET_INFO'],
  [5, 'DEVICE_GET_REGION_INFO'],
  [6, 'DEVICE_GET_REGION_IO_FDS'],
  [7, 'DEVICE_GET_IRQ_INFO'],
  [8, 'DEVICE_SET_IRQS'],
  [9, 'REGION_READ'],
  [10, 'REGION_WRITE'],
  [11, 'DMA_READ'],
  [12, 'DMA_WRITE'],
  [13, 'DEVICE_RESET'],
  [15, 'REGION_WRITE_MULTI'],
  [16, 'DEVICE_FEATURE'],
  [17, 'MIG_DATA_READ'],
  [18, 'MIG_DATA_WRITE'],
];

test.each(TABLE)('command %d is %s', (code, name) => {
  expect(commandName(code)).toBe(name);
  expect(Object.values(Command)).toContain(code);
});

test('there are no other commands', () => {
  expect(Object.values(Command)).toHaveLength(TABLE.length);
  expect(commandName(14)).toBe('command 14');
  expect(commandName(0)).toBe('command 0');
});
