const config = require('../../jest.config');

/** Tests of what is published, as it is installed; they fetch packages. `npm run test:package` */
module.exports = {
  ...config,
  rootDir: '../..',
  roots: ['<rootDir>/test/package'],
  testPathIgnorePatterns: [],
  testTimeout: 600_000,
  globalSetup: '<rootDir>/test/package/pack.ts',
};
