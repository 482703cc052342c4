// SPDX-License-Identifier: MIT
/** A device that is behind another driver, offered by vfio-user. */
export { ProxyModel } from './model';
export type { ProxyStep, StepObserver } from './steps';
