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
import type { RaisedEvent } from './async-events';
import { Outcome } from './outcome';
import type { AdminReply } from './queue-set';

/** What the controller reports as its temperature, in kelvins: 25 degrees Celsius. */
export const TEMPERATURE = 298;
/** WCTEMP in kelvins. */
export const WARNING_TEMPERATURE = 343;
/** CCTEMP in kelvins. */
export const CRITICAL_TEMPERATURE = 353;
/** Unit of the keep alive timer in milliseconds; KAS is this in units of 100 ms. */
export const KEEP_ALIVE_UNIT = 1000;

/** Capabilities that Get Features reports for SEL 3: changeable, but neither saveable nor of a namespace. */
const CHANGEABLE = 4;

/** What {@link FeatureSet} depends on. */
export interface FeatureContext {
  readonly queuePairs: number;
  readonly vectors: number;
  /** The controller has a volatile write cache. */
  readonly volatileCache: boolean;
  /** Whether I/O queues exist. */
  readonly hasIoQueues: () => boolean;
  readonly raise: (event: RaisedEvent) => void;
  /** The timer of Keep Alive was set, in milliseconds; 0 for off. */
  readonly keepAlive: (milliseconds: number) => void;
  /** The volatile write cache was turned on or off. */
  readonly writeCache: (enabled: boolean) => void;
}

/** The features of the controller (NVMe base 2.0, 5.27). None is saved: a controller reset restores the defaults. */
export class FeatureSet {
  readonly #context: FeatureContext;
  readonly #values = new Map<number, number>();
  /** Interrupt Vector Configuration, by vector. */
  readonly #vectors = new Map<number, number>();
  /** Temperature thresholds: over, under. */
  readonly #thresholds: [over: number, under: number] = [WARNING_TEMPERATURE, 0];

  constructor(context: FeatureContext) {
    this.#context = context;
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

  /** Back to the defaults. */
  reset(): void {
    this.#values.clear();
    this.#vectors.clear();
    this.#thresholds[0] = WARNING_TEMPERATURE;
    this.#thresholds[1] = 0;
    this.#context.keepAlive(0);
    this.#context.writeCache(true);
  }

  /** Get Features. */
  get(cdw10: number, cdw11: number): AdminReply {
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

  /** Set Features. */
  set(cdw10: number, cdw11: number, nsid: number): AdminReply {
    const { feature, save } = setFeaturesCdw10.decode(cdw10);
    if (this.#default(feature, cdw11) === undefined) return { outcome: Outcome.invalidField };
    if (save) return { outcome: Outcome.featureNotSaveable };
    if (nsid !== 0 && nsid !== 0xffff_ffff) return { outcome: Outcome.featureNotNamespaceSpecific };
    switch (feature) {
      case Feature.powerManagement:
        if (powerManagement.decode(cdw11).state !== 0) return { outcome: Outcome.invalidField };
        break;
      case Feature.temperatureThreshold:
        return this.#setThreshold(cdw11);
      case Feature.volatileWriteCache:
        this.#context.writeCache(volatileWriteCache.decode(cdw11).enable);
        break;
      case Feature.numberOfQueues:
        return this.#setQueues(cdw11);
      case Feature.interruptVectorConfiguration:
        this.#vectors.set(interruptVectorConfiguration.decode(cdw11).vector, cdw11 & 0x1_ffff);
        return { outcome: Outcome.success };
      case Feature.keepAliveTimer: {
        const rounded = Math.ceil(cdw11 / KEEP_ALIVE_UNIT) * KEEP_ALIVE_UNIT;
        this.#context.keepAlive(rounded);
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

  /** Value after a reset; undefined for a feature that does not exist, or an argument that it does not take. */
  #default(feature: number, cdw11: number): number | undefined {
    switch (feature) {
      case Feature.arbitration:
      case Feature.powerManagement:
      case Feature.errorRecovery:
      case Feature.interruptCoalescing:
      case Feature.writeAtomicity:
      case Feature.asyncEventConfiguration:
      case Feature.keepAliveTimer:
        return 0;
      case Feature.temperatureThreshold: {
        const { type, sensor } = temperatureThreshold.decode(cdw11);
        if (type > 1 || (sensor !== 0 && sensor !== ALL_SENSORS)) return undefined;
        return type === 1 ? 0 : WARNING_TEMPERATURE;
      }
      case Feature.volatileWriteCache:
        return this.#context.volatileCache ? 1 : undefined;
      case Feature.numberOfQueues: {
        const { queuePairs } = this.#context;
        return numberOfQueues.encode({ submission: queuePairs, completion: queuePairs });
      }
      case Feature.interruptVectorConfiguration: {
        const { vector } = interruptVectorConfiguration.decode(cdw11);
        return vector < this.#context.vectors ? vector : undefined;
      }
      default:
        return undefined;
    }
  }

  #setThreshold(cdw11: number): AdminReply {
    const { type, threshold } = temperatureThreshold.decode(cdw11);
    this.#thresholds[type === 1 ? 1 : 0] = threshold;
    this.#warn();
    return { outcome: Outcome.success };
  }

  #setQueues(cdw11: number): AdminReply {
    const { submission, completion } = numberOfQueues.decode(cdw11);
    if (submission > 0xffff || completion > 0xffff) return { outcome: Outcome.invalidField };
    if (this.#context.hasIoQueues()) return { outcome: Outcome.commandSequenceError };
    const { queuePairs } = this.#context;
    const dw0 = numberOfQueues.encode({
      submission: Math.min(submission, queuePairs),
      completion: Math.min(completion, queuePairs),
    });
    this.#values.set(Feature.numberOfQueues, dw0);
    return { outcome: Outcome.success, dw0 };
  }

  /** Raises an event for a critical warning that the host wants to hear of. */
  #warn(): void {
    const { criticalWarnings } = asyncEventConfiguration.decode(this.#value(Feature.asyncEventConfiguration));
    if ((criticalWarnings & this.criticalWarning) === 0) return;
    this.#context.raise({
      type: AsyncEventType.smart,
      info: AsyncSmartEvent.temperature,
      logPage: LogPage.smart,
    });
  }
}

/** TMPSEL for all sensors. */
const ALL_SENSORS = 15;
