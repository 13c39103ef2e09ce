// Quality notes by their code (docs/reference/codes.md; the tests compare): which call for caution, as they are on what can
// hide or imitate blood, or make the result incomplete. Their titles are in the catalogue.

import { t } from "./messages.js";

const CAUTIONS = {
  twelve_bit_repair: false,
  damaged_pixel_data: true,
  modified_hounsfield: true,
  nonstandard_encoding: false,
  nonstandard_uid: false,
  invalid_geometry: true,
  slices_refused: true,
  series_refused: true,
  single_slice: true,
  few_slices: true,
  missing_slices: true,
  uneven_spacing: false,
  positions_unknown: true,
  duplicate_slices: false,
  overlapping_stacks: false,
  dynamic_series: true,
  united_stacks: false,
  repeated_uid: false,
  several_patients: true,
  mixed_orientation: false,
  mixed_size: false,
  mixed_pixel_spacing: false,
  pixels_not_square: false,
  not_axial: true,
  gantry_tilt: false,
  not_head: true,
  unlike_head: true,
  metal: true,
  projection: true,
  virtual_image: true,
  pediatric: true,
  contrast_agent: true,
  contrast_suspected: true,
  unusual_kvp: true,
  bone_kernel: true,
  geometry_assumed: true,
  no_dicom_headers: true,
  coarse_hounsfield: true,
  padding_in_tissue: true,
  undeclared_padding: false,
};

/** Title, the server's message and whether it calls for caution; an unknown code keeps its message. */
export function plainNote({ code, message }) {
  const caution = CAUTIONS[code] ?? true;
  const title = Object.hasOwn(CAUTIONS, code) ? t(`quality.${code}`) : code.replaceAll("_", " ");
  return { code, title, message, caution };
}

export const knownNotes = () => Object.keys(CAUTIONS);
