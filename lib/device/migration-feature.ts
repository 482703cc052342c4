// SPDX-License-Identifier: MIT
import { Feature, decodeMigrationFeature, decodeMigrationState, type MigrationStateCode } from '../protocol';

/** What is asked for the data of a feature. */
interface FeatureSource {
  get(feature: number): Promise<Uint8Array>;
}

/**
 * Asks a device what it can do of migration (`linux/vfio.h`, VFIO_DEVICE_FEATURE_MIGRATION).
 *
 * @param isUnsupported whether an error says that the device does not have the feature
 * @returns bits of {@link MigrationFlag}; 0 without the feature
 */
export async function migrationFlags(
  features: FeatureSource,
  isUnsupported: (error: unknown) => boolean,
): Promise<number> {
  try {
    return decodeMigrationFeature(await features.get(Feature.migration));
  } catch (error) {
    if (!isUnsupported(error)) throw error;
    return 0;
  }
}

/** Asks a device for its state (`linux/vfio.h`, VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE). */
export async function migrationState(features: FeatureSource): Promise<MigrationStateCode> {
  return decodeMigrationState(await features.get(Feature.migDeviceState));
}
