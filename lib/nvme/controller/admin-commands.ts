// SPDX-License-Identifier: MIT
import {
  AdminOpcode,
  BROADCAST_NSID,
  CQE_SIZE_EXPONENT,
  type Command,
  CommandSetId,
  FeatureSelect,
  IDENTIFY_BYTES,
  LogPage,
  SQE_SIZE_EXPONENT,
  abortCdw10,
  createCompletionQueueCdw11,
  createQueueCdw10,
  createSubmissionQueueCdw11,
  decodeCommand,
  decodeLogPageRequest,
  deleteQueueCdw10,
  getFeaturesCdw10,
  getLogPageCdw14,
  setFeaturesCdw10,
} from '../spec';
import type { AsyncEvents } from './async-events';
import type { ClientView, ViewRange } from './client-view';
import { DataPointer, PAGE_BYTES } from './data-pointer';
import type { FeatureSet } from './feature-set';
import type { Identify } from './identify';
import type { KeepAlive } from './keep-alive';
import type { LogPages } from './log-pages';
import type { NamespaceCommands } from './namespace-commands';
import type { ResolvedOptions } from './options';
import { type Answer, type Deferred, Outcome, type Reply } from './outcome';
import type { QueueSet } from './queue-set';
import type { Registers } from './registers';
import type { RunningCommands } from './running-commands';
import { type Alive, commandBytes, receive, resolveParts, writeParts } from './transfer';

/** The parts of the controller that admin commands ask and change. */
export interface AdminContext {
  readonly options: ResolvedOptions;
  readonly view: ClientView;
  readonly registers: Registers;
  readonly queues: QueueSet;
  readonly running: RunningCommands;
  readonly events: AsyncEvents;
  readonly features: FeatureSet;
  readonly keepAlive: KeepAlive;
  readonly identify: Identify;
  readonly logs: LogPages;
  readonly namespaces: NamespaceCommands;
}

/** Dword 0 of the completion of Abort, bit 0: the command was not aborted. */
const NOT_ABORTED = 1;

type Decoded = Required<Command>;

function reply(outcome: number, dw0 = 0): Reply {
  return { outcome, dw0 };
}

/** The admin commands (NVMe base 2.0, 5). */
export class AdminCommands {
  readonly #context: AdminContext;
  readonly #pointer: DataPointer;

  constructor(context: AdminContext) {
    this.#context = context;
    this.#pointer = new DataPointer(context.view, context.options.maxTransfer);
  }

  /**
   * Executes a command.
   * @param words a copy of the command
   * @param alive whether the command still matters
   * @returns what its completion tells; a command that has to be run for that; `'held'` when {@link AsyncEvents} completes it
   */
  execute(words: Uint32Array, alive: Alive): Answer {
    const command = decodeCommand(words, 0);
    // Fused commands are for I/O, and admin commands use PRPs only on PCIe (NVMe base 2.0, 3.3.3.1).
    if (command.fuse !== 0 || command.psdt !== 0) return reply(Outcome.invalidField);
    const { events } = this.#context;
    const { cdw10, cdw11, nsid } = command;
    switch (command.opcode) {
      case AdminOpcode.identify: {
        const data = this.#context.identify.answer(cdw10, cdw11, nsid);
        return typeof data === 'number' ? reply(data) : this.#send(data, IDENTIFY_BYTES, command, alive);
      }
      case AdminOpcode.getLogPage:
        return this.#getLogPage(command, alive);
      case AdminOpcode.getFeatures:
        return this.#getFeatures(command, alive);
      case AdminOpcode.setFeatures:
        return this.#setFeatures(command, alive);
      case AdminOpcode.createIoCompletionQueue:
        return this.#createCompletionQueue(command);
      case AdminOpcode.createIoSubmissionQueue:
        return this.#createSubmissionQueue(command);
      case AdminOpcode.deleteIoCompletionQueue:
        return this.#deleteCompletionQueue(command);
      case AdminOpcode.deleteIoSubmissionQueue:
        return this.#deleteSubmissionQueue(command);
      case AdminOpcode.asynchronousEventRequest:
        return events.request(command.cid) ? 'held' : reply(Outcome.asyncEventLimitExceeded);
      case AdminOpcode.abort:
        return this.#abort(command);
      case AdminOpcode.keepAlive:
        this.#context.keepAlive.restart();
        return reply(Outcome.success);
      case AdminOpcode.doorbellBufferConfig:
        return this.#useShadows(command);
      case AdminOpcode.formatNvm:
        return this.#context.namespaces.format(nsid, cdw10, alive);
      case AdminOpcode.namespaceManagement:
        return this.#context.namespaces.manage(command, alive);
      case AdminOpcode.namespaceAttachment:
        return this.#context.namespaces.attachment(command, alive);
      default:
        return reply(Outcome.invalidOpcode);
    }
  }

  #getFeatures(command: Decoded, alive: Alive): Reply | Deferred {
    const { features } = this.#context;
    const answer = features.get(command.cdw10, command.cdw11);
    const { feature, select } = getFeaturesCdw10.decode(command.cdw10);
    const bytes = features.data.bytes(feature);
    if (bytes === 0 || answer.outcome !== Outcome.success || select === FeatureSelect.supported)
      return answer;
    return this.#send(features.data.get(feature, select === FeatureSelect.current), bytes, command, alive);
  }

  #setFeatures({ cdw10, cdw11, nsid, prp1, prp2 }: Decoded, alive: Alive): Reply | Deferred {
    const { features, view } = this.#context;
    const length = features.data.bytes(setFeaturesCdw10.decode(cdw10).feature);
    if (length === 0) return features.set(cdw10, cdw11, nsid);
    const run = async (): Promise<Reply> => {
      const data = await receive(view, { prp1, prp2 }, length, alive);
      if (typeof data === 'number') return reply(data);
      if (!alive.commit()) return reply(Outcome.internalError);
      return features.set(cdw10, cdw11, nsid, data);
    };
    return { bytes: commandBytes(length), run };
  }

  /** Get Log Page (NVMe base 2.0, 5.16). All pages are about the controller as a whole. */
  #getLogPage(
    { nsid, cdw10, cdw11, cdw12, cdw13, cdw14, prp1, prp2 }: Decoded,
    alive: Alive,
  ): Reply | Deferred {
    const { logs, events, options } = this.#context;
    const { page, length, offset, retainEvent } = decodeLogPageRequest(cdw10, cdw11, cdw12, cdw13);
    const { csi, offsetType } = getLogPageCdw14.decode(cdw14);
    const content = logs.page(page);
    if (content === undefined) return reply(Outcome.invalidLogPage);
    // An offset is one of bytes. The other command sets have no effects.
    if (offset > content.length || offset % 4 !== 0 || offsetType) return reply(Outcome.invalidField);
    if (length > options.maxTransfer) return reply(Outcome.invalidField);
    if (page === LogPage.commandEffects && csi !== CommandSetId.nvm) return reply(Outcome.invalidField);
    if (nsid !== 0 && nsid !== BROADCAST_NSID) return reply(Outcome.invalidField);
    if (!retainEvent) {
      events.pageRead(page);
      logs.pageRead(page);
    }
    return this.#send(content.subarray(offset), length, { prp1, prp2 }, alive);
  }

  /** Sends `data`, cut or filled up with zeros to `length` bytes. */
  #send(
    data: Uint8Array,
    length: number,
    { prp1, prp2 }: Pick<Decoded, 'prp1' | 'prp2'>,
    alive: Alive,
  ): Reply | Deferred {
    const bytes = new Uint8Array(length);
    bytes.set(data.subarray(0, length));
    const pointer = this.#pointer;
    const outcome = pointer.resolve(prp1, prp2, length, true);
    if (pointer.missingList < 0 && outcome !== Outcome.success) return reply(outcome);
    if (pointer.missingList >= 0 || !pointer.mapped) {
      return { bytes: commandBytes(length), run: () => this.#sendSlowly(bytes, prp1, prp2, alive) };
    }
    let from = 0;
    for (let i = 0; i < pointer.count; i++) {
      const range = pointer.ranges[i] as ViewRange;
      const part = pointer.lengths[i] as number;
      range.bytes.set(bytes.subarray(from, from + part), (pointer.addresses[i] as number) + range.bias);
      from += part;
    }
    return reply(Outcome.success);
  }

  async #sendSlowly(bytes: Uint8Array, prp1: number, prp2: number, alive: Alive): Promise<Reply> {
    const { view } = this.#context;
    const parts = await resolveParts(view, bytes.length, alive, (pointer, lists) =>
      pointer.resolve(prp1, prp2, bytes.length, true, lists),
    );
    if (parts.outcome !== Outcome.success) return reply(parts.outcome);
    return reply(await writeParts(view, parts, bytes, alive));
  }

  #createCompletionQueue({ cdw10, cdw11, prp1 }: Decoded): Reply {
    const { queues, features, options } = this.#context;
    const { queueId, entries } = createQueueCdw10.decode(cdw10);
    const { contiguous, interrupts, vector } = createCompletionQueueCdw11.decode(cdw11);
    if (queueId === 0 || queueId > features.completionQueues || queues.completions.has(queueId)) {
      return reply(Outcome.invalidQueueId);
    }
    const outcome = this.#checkQueue(entries, contiguous, prp1);
    if (outcome !== Outcome.success) return reply(outcome);
    if (interrupts && vector >= options.vectors) return reply(Outcome.invalidInterruptVector);
    const queue = queues.createCompletionQueue(queueId, prp1, entries, interrupts ? vector : -1);
    return this.#created(`Completion queue ${queueId}`, queue);
  }

  #createSubmissionQueue({ cdw10, cdw11, prp1 }: Decoded): Reply {
    const { queues, features } = this.#context;
    const { queueId, entries } = createQueueCdw10.decode(cdw10);
    const { contiguous, completionQueueId } = createSubmissionQueueCdw11.decode(cdw11);
    if (queueId === 0 || queueId > features.submissionQueues || queues.hasSubmissionQueue(queueId)) {
      return reply(Outcome.invalidQueueId);
    }
    if (completionQueueId === 0 || completionQueueId > features.completionQueues) {
      return reply(Outcome.invalidQueueId);
    }
    const completions = queues.completions.get(completionQueueId);
    if (completions === undefined) return reply(Outcome.completionQueueInvalid);
    const outcome = this.#checkQueue(entries, contiguous, prp1);
    if (outcome !== Outcome.success) return reply(outcome);
    const queue = queues.createSubmissionQueue(queueId, prp1, entries, completions);
    return this.#created(`Submission queue ${queueId}`, queue);
  }

  /** @param queue the queue, or the address of an entry that is not mapped here */
  #created(name: string, queue: object | number): Reply {
    if (typeof queue !== 'number') return reply(Outcome.success);
    this.#context.options.onWarning(
      `${name} was not created: its entry at 0x${queue.toString(16)} is not in memory that the client shares`,
    );
    return reply(Outcome.dataTransferError);
  }

  #checkQueue(entries: number, contiguous: boolean, address: number): number {
    const { options, registers } = this.#context;
    const { iosqes, iocqes } = registers.configuration;
    if (entries < 2 || entries > options.maxQueueEntries) return Outcome.invalidQueueSize;
    if (iosqes !== SQE_SIZE_EXPONENT || iocqes !== CQE_SIZE_EXPONENT) return Outcome.invalidQueueSize;
    if (!contiguous) return Outcome.invalidField;
    return address % PAGE_BYTES === 0 ? Outcome.success : Outcome.prpOffsetInvalid;
  }

  /** Doorbell Buffer Config (NVMe base 2.0, 5.8). Misplaced pages have the status that SPDK's and QEMU's controllers give them. */
  #useShadows({ prp1, prp2 }: Decoded): Reply {
    const { queues, options } = this.#context;
    if (!queues.doorbells.shadows) return reply(Outcome.invalidOpcode);
    const misplaced = [prp1, prp2].some((address) => address === 0 || address % PAGE_BYTES !== 0);
    if (misplaced || prp1 === prp2) return reply(Outcome.invalidField);
    if (queues.useShadows(prp1, prp2)) return reply(Outcome.success);
    options.onWarning(
      `Doorbell Buffer Config was refused: 0x${prp1.toString(16)} or 0x${prp2.toString(16)} is not in memory that the client shares for reading and writing`,
    );
    return reply(Outcome.dataTransferError);
  }

  #deleteCompletionQueue({ cdw10 }: Decoded): Reply {
    const { queues } = this.#context;
    const { queueId } = deleteQueueCdw10.decode(cdw10);
    const queue = queues.completions.get(queueId);
    if (queueId === 0 || queue === undefined) return reply(Outcome.invalidQueueId);
    if (queue.users > 0) return reply(Outcome.invalidQueueDeletion);
    queues.deleteCompletionQueue(queue);
    return reply(Outcome.success);
  }

  /** Commands that were not fetched are dropped; the host knows them aborted by the deletion (NVMe base 2.0, 3.3.1.3). */
  #deleteSubmissionQueue({ cdw10 }: Decoded): Reply | Promise<Reply> {
    const { queues } = this.#context;
    const { queueId } = deleteQueueCdw10.decode(cdw10);
    const queue = queues.submissions.get(queueId);
    if (queueId === 0 || queue === undefined) return reply(Outcome.invalidQueueId);
    return queues.deleteSubmissionQueue(queue);
  }

  /** Abort (NVMe base 2.0, 5.1). It is done at once, so that no more than ACL allows are outstanding. */
  #abort({ cdw10 }: Decoded): Reply {
    const { sqId, cid } = abortCdw10.decode(cdw10);
    const { events, running } = this.#context;
    const aborted = (sqId === 0 && events.abort(cid)) || running.abort(sqId, cid);
    return reply(Outcome.success, aborted ? 0 : NOT_ABORTED);
  }
}
