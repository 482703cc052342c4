// SPDX-License-Identifier: MIT
import {
  AsyncSmartEvent,
  AsyncEventType,
  CriticalWarning,
  Feature,
  FeatureSelect,
  LogPage,
  asyncEventConfiguration,
  getFeaturesCdw10,
  interruptVectorConfiguration,
  numberOfQueues,
  powerManagement,
  setFeaturesCdw10,
  temperatureThreshold,
  volatileWriteCache,
} from '../spec';
import type { AsyncEvents } from './async-events';
import { DataFeatures } from './data-features';
import type { KeepAlive } from './keep-alive';
import type { ResolvedOptions } from './options';
import { Outcome, type Reply } from './outcome';
import type { QueueSet } from './queue-set';

/** What the controller reports as its temperature, in kelvins: 25 degrees Celsius. */
export const TEMPERATURE = 298;
/** WCTEMP in kelvins. */
export const WARNING_TEMPERATURE = 343;
/** CCTEMP in kelvins. */
export const CRITICAL_TEMPERATURE = 353;
/** Granularity of the Keep Alive Timer in milliseconds. KAS is this in units of 100 ms. */
export const KEEP_ALIVE_UNIT = 1000;

/** What Get Features reports for SEL 3: a feature is changeable, but neither saveable nor specific to a namespace. */
const CHANGEABLE = 4;

/** TMPSEL for all sensors. */
const ALL_SENSORS = 15;

/** The features of the controller (NVMe base 2.0, 5.27). None is saved: a controller reset restores the defaults. */
export class FeatureSet {
  /** The values that are data structures. */
  readonly data = new DataFeatures();
  /** Every write is to be made durable: the host has turned the volatile write cache off, or knows of none. */
  writeThrough: boolean;
  readonly #options: ResolvedOptions;
  readonly #queues: QueueSet;
  readonly #events: AsyncEvents;
  readonly #keepAlive: KeepAlive;
  readonly #values = new Map<number, number>();
  /** Interrupt Vector Configuration, by vector. */
  readonly #vectors = new Map<number, number>();
  /** Temperature thresholds: over, under. */
  readonly #thresholds: [over: number, under: number] = [WARNING_TEMPERATURE, 0];

  constructor(options: ResolvedOptions, queues: QueueSet, events: AsyncEvents, keepAlive: KeepAlive) {
    this.#options = options;
    this.#queues = queues;
    this.#events = events;
    this.#keepAlive = keepAlive;
    this.writeThrough = !options.volatileCache;
  }

  /** I/O submission queues that the host may create. */
  get submissionQueues(): number {
    return numberOfQueues.decode(this.#value(Feature.numberOfQueues)).submission;
  }

  /** I/O completion queues that the host may create. */
  get completionQueues(): number {
    return numberOfQueues.decode(this.#value(Feature.numberOfQueues)).completion;
  }

  /** SMART critical warnings that hold. */
  get criticalWarning(): number {
    const [over, under] = this.#thresholds;
    return TEMPERATURE >= over || TEMPERATURE <= under ? CriticalWarning.temperature : 0;
  }

  /** Whether the host wants to be told of namespaces that come, go or change. */
  get namespaceNotices(): boolean {
    return asyncEventConfiguration.decode(this.#value(Feature.asyncEventConfiguration)).namespaceAttributes;
  }

  /** Restores the defaults. */
  reset(): void {
    this.#values.clear();
    this.#vectors.clear();
    this.#thresholds[0] = WARNING_TEMPERATURE;
    this.#thresholds[1] = 0;
    this.#keepAlive.stop();
    this.data.reset();
    this.writeThrough = !this.#options.volatileCache;
  }

  /** Executes Get Features (NVMe base 2.0, 5.15), but for the transfer of {@link data}. */
  get(cdw10: number, cdw11: number): Reply {
    const { feature, select } = getFeaturesCdw10.decode(cdw10);
    const standard = this.#default(feature, cdw11);
    if (standard === undefined || select > FeatureSelect.supported) return { outcome: Outcome.invalidField };
    switch (select) {
      case FeatureSelect.current:
        return { outcome: Outcome.success, dw0: this.#current(feature, cdw11) };
      case FeatureSelect.supported:
        return { outcome: Outcome.success, dw0: CHANGEABLE };
      default: // What is not saved reads as the default (NVMe base 2.0, 5.15).
        return { outcome: Outcome.success, dw0: standard };
    }
  }

  /**
   * Executes Set Features (NVMe base 2.0, 5.27).
   * @param data what was transferred for a feature of {@link data}
   */
  set(cdw10: number, cdw11: number, nsid: number, data?: Uint8Array): Reply {
    const { feature, save } = setFeaturesCdw10.decode(cdw10);
    if (this.#default(feature, cdw11) === undefined) return { outcome: Outcome.invalidField };
    if (save) return { outcome: Outcome.featureNotSaveable };
    if (nsid !== 0 && nsid !== 0xffff_ffff) return { outcome: Outcome.featureNotNamespaceSpecific };
    if (data !== undefined) return { outcome: this.data.set(feature, data) };
    switch (feature) {
      case Feature.powerManagement:
        if (powerManagement.decode(cdw11).state !== 0) return { outcome: Outcome.invalidField };
        break;
      case Feature.temperatureThreshold:
        return this.#setThreshold(cdw11);
      case Feature.volatileWriteCache:
        this.writeThrough = !volatileWriteCache.decode(cdw11).enable;
        break;
      case Feature.numberOfQueues:
        return this.#setQueues(cdw11);
      case Feature.interruptVectorConfiguration:
        this.#vectors.set(interruptVectorConfiguration.decode(cdw11).vector, cdw11 & 0x1_ffff);
        return { outcome: Outcome.success };
      case Feature.keepAliveTimer: {
        const rounded = Math.ceil(cdw11 / KEEP_ALIVE_UNIT) * KEEP_ALIVE_UNIT;
        this.#keepAlive.start(rounded);
        this.#values.set(feature, Math.min(rounded, 0xffff_ffff));
        return { outcome: Outcome.success };
      }
    }
    this.#values.set(feature, cdw11);
    if (feature === Feature.asyncEventConfiguration) this.#warn();
    return { outcome: Outcome.success };
  }

  #value(feature: number): number {
    return this.#values.get(feature) ?? this.#default(feature, 0) ?? 0;
  }

  #current(feature: number, cdw11: number): number {
    if (feature === Feature.temperatureThreshold) {
      return this.#thresholds[temperatureThreshold.decode(cdw11).type === 1 ? 1 : 0];
    }
    if (feature === Feature.interruptVectorConfiguration) {
      const { vector } = interruptVectorConfiguration.decode(cdw11);
      return this.#vectors.get(vector) ?? vector;
    }
    return this.#value(feature);
  }

  /** The value after a reset; undefined for a feature that does not exist, or an argument that it does not take. */
  #default(feature: number, cdw11: number): number | undefined {
    const { volatileCache, queuePairs, vectors } = this.#options;
    switch (feature) {
      case Feature.arbitration:
      case Feature.powerManagement:
      case Feature.errorRecovery:
      case Feature.interruptCoalescing:
      case Feature.writeAtomicity:
      case Feature.asyncEventConfiguration:
      case Feature.keepAliveTimer:
      case Feature.hostBehavior:
      case Feature.timestamp:
        return 0;
      case Feature.temperatureThreshold: {
        const { type, sensor } = temperatureThreshold.decode(cdw11);
        if (type > 1 || (sensor !== 0 && sensor !== ALL_SENSORS)) return undefined;
        return type === 1 ? 0 : WARNING_TEMPERATURE;
      }
      case Feature.volatileWriteCache:
        return volatileCache ? 1 : undefined;
      case Feature.numberOfQueues: {
        return numberOfQueues.encode({ submission: queuePairs, completion: queuePairs });
      }
      case Feature.interruptVectorConfiguration: {
        const { vector } = interruptVectorConfiguration.decode(cdw11);
        return vector < vectors ? vector : undefined;
      }
      default:
        return undefined;
    }
  }

  #setThreshold(cdw11: number): Reply {
    const { type, threshold } = temperatureThreshold.decode(cdw11);
    this.#thresholds[type === 1 ? 1 : 0] = threshold;
    this.#warn();
    return { outcome: Outcome.success };
  }

  #setQueues(cdw11: number): Reply {
    const { submission, completion } = numberOfQueues.decode(cdw11);
    if (submission > 0xffff || completion > 0xffff) return { outcome: Outcome.invalidField };
    if (this.#queues.hasIoQueues) return { outcome: Outcome.commandSequenceError };
    const { queuePairs } = this.#options;
    const dw0 = numberOfQueues.encode({
      submission: Math.min(submission, queuePairs),
      completion: Math.min(completion, queuePairs),
    });
    this.#values.set(Feature.numberOfQueues, dw0);
    return { outcome: Outcome.success, dw0 };
  }

  /** Raises an event for a critical warning, if the host has asked for it. */
  #warn(): void {
    const { criticalWarnings } = asyncEventConfiguration.decode(this.#value(Feature.asyncEventConfiguration));
    if ((criticalWarnings & this.criticalWarning) === 0) return;
    this.#events.raise({
      type: AsyncEventType.smart,
      info: AsyncSmartEvent.temperature,
      logPage: LogPage.smart,
    });
  }
}
