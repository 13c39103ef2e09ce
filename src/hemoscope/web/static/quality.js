// Quality notes in plain words, by their code (docs/reference/codes.md; the tests compare).
// `caution` marks notes on what can hide or imitate blood, or make the result incomplete.

const NOTES = {
  twelve_bit_repair: ["Pixel values repaired", false],
  damaged_pixel_data: ["Compressed pixels damaged: parts may be wrong", true],
  modified_hounsfield: ["Units are called modified HU", true],
  nonstandard_encoding: ["The pixels' encoding breaks the standard", false],
  nonstandard_uid: ["An identifier breaks the standard", false],
  invalid_geometry: ["Position or spacing unusable", true],
  slices_refused: ["Some slices could not be read", true],
  series_refused: ["The preferred series was refused", true],
  single_slice: ["Single slice", true],
  few_slices: ["Less than a whole head", true],
  missing_slices: ["Gaps in the series", true],
  uneven_spacing: ["Slices unequally far apart", false],
  positions_unknown: ["Slice positions unknown", true],
  duplicate_slices: ["Duplicate slices left out", false],
  overlapping_stacks: ["A second pass over the same place left out", false],
  dynamic_series: ["Dynamic series: one time point read", true],
  united_stacks: ["Stacks of different tilt or size read as one", false],
  repeated_uid: ["Slices share an identifier", false],
  several_patients: ["Files of several patients in one study", true],
  mixed_orientation: ["Slices of another orientation left out", false],
  mixed_size: ["Slices of another size left out", false],
  mixed_pixel_spacing: ["Pixel spacing differs between slices", false],
  pixels_not_square: ["Pixels not square: resampled", false],
  not_axial: ["Not an axial series", true],
  gantry_tilt: ["Tilted gantry", false],
  not_head: ["Perhaps not a head", true],
  unlike_head: ["May not show a head", true],
  metal: ["Metal: streaks can hide or imitate blood", true],
  projection: ["Intensity projection: vessels and bone cover the brain", true],
  virtual_image: ["Computed from two energies", true],
  pediatric: ["Patient under 18", true],
  contrast_agent: ["Contrast agent given: can look like blood", true],
  contrast_suspected: ["Bright sinus: contrast agent suspected", true],
  unusual_kvp: ["Unusual tube voltage", true],
  bone_kernel: ["Sharp kernel: noise can hide blood", true],
  geometry_assumed: ["Geometry assumed, not measured", true],
  no_dicom_headers: ["Read without DICOM headers", true],
  coarse_hounsfield: ["Steps too coarse to tell blood from brain", true],
  padding_in_tissue: ["Padding has values of tissue", true],
  undeclared_padding: ["Undeclared padding read as air", false],
};

/** Title, the server's message and whether it calls for caution; an unknown code keeps its message. */
export function plainNote({ code, message }) {
  const [title, caution] = NOTES[code] ?? [code.replaceAll("_", " "), true];
  return { code, title, message, caution };
}

export const knownNotes = () => Object.keys(NOTES);
