// SPDX-License-Identifier: MIT
import { type WordCodec, type WordOf, bits, flag, wordCodec, zeroBased } from './bits';

/** Feature identifiers (FID; NVMe base 2.0, figure "Set Features - Feature Identifiers"). @enum */
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

const arbitration = wordCodec({
  /** AB: commands of a burst as a power of two; 7 for no limit. */
  burst: bits(0, 3),
  /** LPW: commands of low priority of a round, 1 to 256. */
  lowWeight: zeroBased(8, 8),
  /** MPW: commands of medium priority of a round, 1 to 256. */
  mediumWeight: zeroBased(16, 8),
  /** HPW: commands of high priority of a round, 1 to 256. */
  highWeight: zeroBased(24, 8),
});
/** Arbitration, 01h. */
export interface Arbitration extends WordOf<typeof arbitration> {}

export const powerManagement = wordCodec({
  /** PS: power state. */
  state: bits(0, 5),
  /** WH: workload hint. */
  workload: bits(5, 3),
});
/** Power Management, 02h. */
export interface PowerManagement extends WordOf<typeof powerManagement> {}

export const temperatureThreshold = wordCodec({
  /** TMPTH in kelvins. */
  threshold: bits(0, 16),
  /** TMPSEL: 0 composite, 1 to 8 sensors, 15 all (Set Features only). */
  sensor: bits(16, 4),
  /** THSEL: 0 over, 1 under. */
  type: bits(20, 2),
});
/** Temperature Threshold, 04h. */
export interface TemperatureThreshold extends WordOf<typeof temperatureThreshold> {}

const errorRecovery = wordCodec({
  /** TLER in units of 100 ms; 0 for no limit. */
  timeLimit: bits(0, 16),
  /** DULBE: reading a deallocated block is an error. */
  deallocatedError: flag(16),
});
/** Error Recovery, 05h. */
export interface ErrorRecovery extends WordOf<typeof errorRecovery> {}

export const volatileWriteCache = wordCodec({
  /** WCE: the cache is on. */
  enable: flag(0),
});
/** Volatile Write Cache, 06h. */
export interface VolatileWriteCache extends WordOf<typeof volatileWriteCache> {}

export const numberOfQueues = wordCodec({
  /** NSQR, NSQA: I/O submission queues. */
  submission: zeroBased(0, 16),
  /** NCQR, NCQA: I/O completion queues. */
  completion: zeroBased(16, 16),
});
/** Number of Queues, 07h: requested in CDW11, allocated in dword 0 of the completion. 1 to 65536 of each. */
export interface NumberOfQueues extends WordOf<typeof numberOfQueues> {}

const interruptCoalescing = wordCodec({
  /** THR: completions per interrupt, 1 to 256. */
  threshold: zeroBased(0, 8),
  /** TIME in units of 100 microseconds. */
  time: bits(8, 8),
});
/** Interrupt Coalescing, 08h. */
export interface InterruptCoalescing extends WordOf<typeof interruptCoalescing> {}

export const interruptVectorConfiguration = wordCodec({
  /** IV: the vector, which also says which one is asked about. */
  vector: bits(0, 16),
  /** CD: no coalescing for this vector. */
  coalescingDisable: flag(16),
});
/** Interrupt Vector Configuration, 09h. */
export interface InterruptVectorConfiguration extends WordOf<typeof interruptVectorConfiguration> {}

const writeAtomicity = wordCodec({
  /** DN: AWUN and NAWUN need not be honoured. */
  disableNormal: flag(0),
});
/** Write Atomicity Normal, 0Ah. */
export interface WriteAtomicity extends WordOf<typeof writeAtomicity> {}

export const asyncEventConfiguration = wordCodec({
  /** SMART warnings that raise events, a mask of `CriticalWarning`. */
  criticalWarnings: bits(0, 8),
  /** A namespace was added, removed or changed. */
  namespaceAttributes: flag(8),
  /** Firmware activation starts. */
  firmwareActivation: flag(9),
  /** The telemetry log has new data. */
  telemetry: flag(10),
  /** Asymmetric namespace access changed. */
  anaChange: flag(11),
  /** The discovery log page changed. */
  discovery: flag(31),
});
/** Asynchronous Event Configuration, 0Bh: which events the controller tells. */
export interface AsyncEventConfiguration extends WordOf<typeof asyncEventConfiguration> {}

const keepAliveTimer = wordCodec({
  /** KATO: the controller gives the host up after so many milliseconds without a Keep Alive; 0 turns the timer off. */
  timeout: bits(0, 32),
});
/** Keep Alive Timer, 0Fh. */
export interface KeepAliveTimer extends WordOf<typeof keepAliveTimer> {}

/** The features whose value is a single word: CDW11 of Set Features, and dword 0 of the completion of Get Features. */
export interface FeatureValues {
  /** Feature 01h. */
  readonly arbitration: Arbitration;
  /** Feature 02h. */
  readonly powerManagement: PowerManagement;
  /** Feature 04h. */
  readonly temperatureThreshold: TemperatureThreshold;
  /** Feature 05h. */
  readonly errorRecovery: ErrorRecovery;
  /** Feature 06h. */
  readonly volatileWriteCache: VolatileWriteCache;
  /** Feature 07h. */
  readonly numberOfQueues: NumberOfQueues;
  /** Feature 08h. */
  readonly interruptCoalescing: InterruptCoalescing;
  /** Feature 09h. */
  readonly interruptVectorConfiguration: InterruptVectorConfiguration;
  /** Feature 0Ah. */
  readonly writeAtomicity: WriteAtomicity;
  /** Feature 0Bh. */
  readonly asyncEventConfiguration: AsyncEventConfiguration;
  /** Feature 0Fh. */
  readonly keepAliveTimer: KeepAliveTimer;
}

/** Name of a feature whose value is decoded and encoded, a key of {@link Feature}. */
export type FeatureName = keyof FeatureValues;

/** How the value of each feature is decoded and encoded. */
export const featureWords: { readonly [N in FeatureName]: WordCodec<FeatureValues[N]> } = {
  arbitration,
  powerManagement,
  temperatureThreshold,
  errorRecovery,
  volatileWriteCache,
  numberOfQueues,
  interruptCoalescing,
  interruptVectorConfiguration,
  writeAtomicity,
  asyncEventConfiguration,
  keepAliveTimer,
};

export const featureCapabilities = wordCodec({
  /** The value can be saved, so that it survives resets and power cycles. */
  saveable: flag(0),
  /** Each namespace has a value of its own. */
  namespaceSpecific: flag(1),
  /** Set Features changes the value. */
  changeable: flag(2),
});

/** What can be done with a feature: dword 0 of the completion of Get Features with SEL 3 (NVMe base 2.0, 5.15). */
export interface FeatureCapabilities extends WordOf<typeof featureCapabilities> {}

/** Types of asynchronous events (NVMe base 2.0, 5.2). @enum */
export const AsyncEventType = {
  error: 0,
  smart: 1,
  notice: 2,
  immediate: 3,
  ioCommandSet: 6,
  vendor: 7,
} as const;

/** Information of events of type error (NVMe base 2.0, 5.2). @enum */
export const AsyncErrorEvent = {
  invalidDoorbellRegister: 0,
  invalidDoorbellValue: 1,
  diagnosticFailure: 2,
  persistentInternalError: 3,
  transientInternalError: 4,
  firmwareImageLoadError: 5,
} as const;

/** Information of events of type SMART (NVMe base 2.0, 5.2). @enum */
export const AsyncSmartEvent = {
  /** The subsystem has become unreliable. */
  reliability: 0,
  /** A temperature is beyond a threshold. */
  temperature: 1,
  /** The available spare capacity is below its threshold. */
  spare: 2,
} as const;

/** Information of events of type notice (NVMe base 2.0, 5.2). @enum */
export const AsyncNotice = {
  namespaceAttributeChanged: 0,
  firmwareActivationStarting: 1,
  telemetryLogChanged: 2,
  anaChange: 3,
} as const;

export const asyncEvent = wordCodec({
  /** A value of {@link AsyncEventType}. */
  type: bits(0, 3),
  /** What happened: a value of {@link AsyncErrorEvent}, {@link AsyncSmartEvent} or {@link AsyncNotice}, by type. */
  info: bits(8, 8),
  /** Log page to read. The controller tells no other event of the type until it is read. */
  logPage: bits(16, 8),
});

/** What an asynchronous event tells: dword 0 of the completion of Asynchronous Event Request (NVMe base 2.0, 5.2). */
export interface AsyncEvent extends WordOf<typeof asyncEvent> {}
