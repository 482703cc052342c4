// SPDX-License-Identifier: MIT
import { type WordOf, bits, flag, wordCodec, zeroBased } from './bits';

/** Feature identifiers (FID; NVMe base 2.0, figure "Set Features - Feature Identifiers"). */
export const Feature = {
  arbitration: 0x01,
  powerManagement: 0x02,
  lbaRangeType: 0x03,
  temperatureThreshold: 0x04,
  errorRecovery: 0x05,
  volatileWriteCache: 0x06,
  numberOfQueues: 0x07,
  interruptCoalescing: 0x08,
  interruptVectorConfiguration: 0x09,
  writeAtomicity: 0x0a,
  asyncEventConfiguration: 0x0b,
  autonomousPowerTransition: 0x0c,
  hostMemoryBuffer: 0x0d,
  timestamp: 0x0e,
  keepAliveTimer: 0x0f,
  hostThermalManagement: 0x10,
  nonOperationalPower: 0x11,
  readRecoveryLevel: 0x12,
  hostBehavior: 0x16,
  sanitizeConfiguration: 0x17,
  commandSetProfile: 0x19,
  softwareProgressMarker: 0x80,
  hostIdentifier: 0x81,
  reservationNotificationMask: 0x82,
  reservationPersistence: 0x83,
  writeProtection: 0x84,
} as const;

/** Arbitration, 01h. */
export const arbitration = wordCodec({
  /** AB: commands of a burst as a power of two; 7 for no limit. */
  burst: bits(0, 3),
  /** LPW: commands of low priority of a round, 1 to 256. */
  lowWeight: zeroBased(8, 8),
  /** MPW */
  mediumWeight: zeroBased(16, 8),
  /** HPW */
  highWeight: zeroBased(24, 8),
});

/** Power Management, 02h. */
export const powerManagement = wordCodec({
  /** PS: power state. */
  state: bits(0, 5),
  /** WH: workload hint. */
  workload: bits(5, 3),
});

/** Temperature Threshold, 04h. */
export const temperatureThreshold = wordCodec({
  /** TMPTH in kelvins. */
  threshold: bits(0, 16),
  /** TMPSEL: 0 composite, 1 to 8 sensors, 15 all (Set Features only). */
  sensor: bits(16, 4),
  /** THSEL: 0 over, 1 under. */
  type: bits(20, 2),
});

/** Error Recovery, 05h. */
export const errorRecovery = wordCodec({
  /** TLER in units of 100 ms; 0 for no limit. */
  timeLimit: bits(0, 16),
  /** DULBE: reading a deallocated block is an error. */
  deallocatedError: flag(16),
});

/** Volatile Write Cache, 06h. */
export const volatileWriteCache = wordCodec({
  /** WCE */
  enable: flag(0),
});

/** Number of Queues, 07h: requested in CDW11, allocated in dword 0 of the completion. 1 to 65536 of each. */
export const numberOfQueues = wordCodec({
  /** NSQR, NSQA */
  submission: zeroBased(0, 16),
  /** NCQR, NCQA */
  completion: zeroBased(16, 16),
});

/** Interrupt Coalescing, 08h. */
export const interruptCoalescing = wordCodec({
  /** THR: completions per interrupt, 1 to 256. */
  threshold: zeroBased(0, 8),
  /** TIME in units of 100 microseconds. */
  time: bits(8, 8),
});

/** Interrupt Vector Configuration, 09h. */
export const interruptVectorConfiguration = wordCodec({
  /** IV */
  vector: bits(0, 16),
  /** CD: no coalescing for this vector. */
  coalescingDisable: flag(16),
});

/** Write Atomicity Normal, 0Ah. */
export const writeAtomicity = wordCodec({
  /** DN: AWUN and NAWUN need not be honoured. */
  disableNormal: flag(0),
});

/** Asynchronous Event Configuration, 0Bh. */
export const asyncEventConfiguration = wordCodec({
  /** SMART warnings that raise events, a mask of `CriticalWarning`. */
  criticalWarnings: bits(0, 8),
  namespaceAttributes: flag(8),
  firmwareActivation: flag(9),
  telemetry: flag(10),
  anaChange: flag(11),
  discovery: flag(31),
});

/** Types of asynchronous events. */
export const AsyncEventType = {
  error: 0,
  smart: 1,
  notice: 2,
  immediate: 3,
  ioCommandSet: 6,
  vendor: 7,
} as const;

/** Information of events of type error. */
export const AsyncErrorEvent = {
  invalidDoorbellRegister: 0,
  invalidDoorbellValue: 1,
  diagnosticFailure: 2,
  persistentInternalError: 3,
  transientInternalError: 4,
  firmwareImageLoadError: 5,
} as const;

/** Information of events of type SMART. */
export const AsyncSmartEvent = { reliability: 0, temperature: 1, spare: 2 } as const;

/** Information of events of type notice. */
export const AsyncNotice = {
  namespaceAttributeChanged: 0,
  firmwareActivationStarting: 1,
  telemetryLogChanged: 2,
  anaChange: 3,
} as const;

/** Dword 0 of the completion of Asynchronous Event Request (NVMe base 2.0, 5.2). */
export const asyncEvent = wordCodec({
  /** A value of {@link AsyncEventType}. */
  type: bits(0, 3),
  /** What happened, by type. */
  info: bits(8, 8),
  /** Log page to read, which also arms the event again. */
  logPage: bits(16, 8),
});

/** A decoded asynchronous event. */
export type AsyncEvent = WordOf<typeof asyncEvent>;
