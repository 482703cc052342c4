// SPDX-License-Identifier: MIT
/** Entry point of the worker thread that runs one job. */
import { parentPort, workerData } from 'node:worker_threads';
import { runJob } from './job-runner';
import type { JobPlan } from './plan';

void runJob(workerData as JobPlan).then((report) => parentPort?.postMessage(report));
