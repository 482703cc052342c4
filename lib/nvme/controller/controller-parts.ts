// SPDX-License-Identifier: MIT
import { CommandSets, encodeCapabilities } from '../spec';
import { FaultPlan, Faults, type FaultEffects } from '../faults';
import { AdminCommands } from './admin-commands';
import { AsyncEvents } from './async-events';
import { BusyTime } from './busy-time';
import type { ClientView } from './client-view';
import { CommandProcessor } from './command-processor';
import { DoorbellWatch } from './doorbell-watch';
import type { Doorbells } from './doorbells';
import { ErrorLog } from './error-log';
import { FaultyRegisters } from './faulty-registers';
import { FeatureSet } from './feature-set';
import { Identify, NVME_VERSION } from './identify';
import type { InterruptLines } from './interrupt-lines';
import { IoCommands } from './io-commands';
import type { KeepAlive } from './keep-alive';
import { Latencies } from './latencies';
import { LogPages } from './log-pages';
import { NamespaceCommands } from './namespace-commands';
import type { NamespaceSet } from './namespace-set';
import type { ResolvedOptions } from './options';
import { QueueSet } from './queue-set';
import { Registers } from './registers';
import { RunningCommands } from './running-commands';
import { type Counters, newCounters } from './statistics';

/** CAP.TO in milliseconds: longer than a client takes to answer, or to fail to answer, a message. */
const READY_TIMEOUT = 15_000;

/** What a controller has around it. */
interface Surroundings {
  readonly options: ResolvedOptions;
  readonly namespaces: NamespaceSet;
  /** The client's memory. */
  readonly view: ClientView;
  readonly doorbells: Doorbells;
  readonly lines: InterruptLines;
  readonly keepAlive: KeepAlive;
  /** What faults do to the controller. */
  readonly effects: FaultEffects;
}

/** What a controller consists of: who serves the queues, and what each of them works with. */
export interface ControllerParts {
  readonly registers: Registers;
  readonly queues: QueueSet;
  readonly events: AsyncEvents;
  readonly watch: DoorbellWatch;
  readonly features: FeatureSet;
  readonly running: RunningCommands;
  readonly commands: CommandProcessor;
  readonly plan: FaultPlan;
  readonly faultyRegisters: FaultyRegisters;
  readonly faults: Faults;
  readonly counters: Counters;
  readonly busy: BusyTime;
  readonly latencies: Latencies | null;
}

/** Makes the parts of a controller, of which nothing runs yet. Changes of namespaces are told to the host from now on. */
export function controllerParts(surroundings: Surroundings): ControllerParts {
  const { options, namespaces, view, doorbells, lines, keepAlive, effects } = surroundings;
  const { maxTransfer, onWarning } = options;
  const counters = newCounters();
  const errors = new ErrorLog();
  const plan = new FaultPlan();
  const busy = new BusyTime();
  const registers = new Registers(capabilities(options), NVME_VERSION);
  const queues = new QueueSet(view, doorbells, lines, counters);
  const events = new AsyncEvents(queues, errors);
  const running = new RunningCommands(busy);
  const watch = new DoorbellWatch(queues, events, counters);
  const features = new FeatureSet(options, queues, events, keepAlive);
  const logs = new LogPages(errors, features, namespaces, counters, busy, doorbells.shadows);
  const latencies = options.latencies ? new Latencies() : null;
  const ioContext = { namespaces, maxTransfer, view, features, counters, onWarning };
  const io = new IoCommands(ioContext);
  const identify = new Identify(options, namespaces, doorbells.shadows);
  const admin = new AdminCommands({
    options,
    view,
    registers,
    queues,
    running,
    events,
    features,
    keepAlive,
    identify,
    logs,
    namespaces: new NamespaceCommands(options, namespaces, view),
  });
  const commands = new CommandProcessor({
    queues,
    admin,
    io,
    running,
    watch,
    errors,
    counters,
    latencies,
    plan,
    effects,
    ioContext,
  });
  namespaces.onChange = (nsid) => {
    logs.namespaceChanged(nsid);
    if (features.namespaceNotices) events.raiseNamespaceNotice();
  };
  return {
    registers,
    queues,
    events,
    watch,
    features,
    running,
    commands,
    plan,
    counters,
    busy,
    latencies,
    faultyRegisters: new FaultyRegisters(plan, effects),
    faults: new Faults(plan, effects),
  };
}

/** CAP of the controller. */
function capabilities({ maxQueueEntries, dstrd }: ResolvedOptions): readonly [number, number] {
  return encodeCapabilities({
    maxQueueEntries,
    contiguousQueuesRequired: true,
    weightedRoundRobin: false,
    timeout: READY_TIMEOUT,
    dstrd,
    subsystemReset: false,
    commandSets: CommandSets.nvm,
    minPageSize: 4096,
    maxPageSize: 4096,
    persistentMemoryRegion: false,
    controllerMemoryBuffer: false,
    readyWithMedia: false,
    readyIndependentOfMedia: false,
  });
}
