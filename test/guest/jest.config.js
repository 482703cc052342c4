const config = require('../../jest.config');

/** Linux in a machine of QEMU whose drive is our controller. `npm run test:guest` */
module.exports = {
  ...config,
  rootDir: '../..',
  roots: ['<rootDir>/test/guest'],
  testPathIgnorePatterns: [],
  // A guest with two processors needs them.
  maxWorkers: 1,
  verbose: true,
  globalSetup: '<rootDir>/test/guest/prepare.ts',
};
